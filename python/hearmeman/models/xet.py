"""Fetches bytes through Hugging Face's Xet storage, in a process of its own, since it may hang and reads its variables once.

As a program it takes one JSON object on standard input, writes into the staged file, and prints how far it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hearmeman.models.errors import TransientError

SMALLEST = 32 * 1024**2
"""Smaller files come faster by plain HTTP."""
STALL_SECONDS = 60.0
TRIES = 2
"""Processes that may fail before plain HTTP takes over."""


def fetch(
    xet: Mapping[str, Any], path: Path, span: tuple[int, int], arrived: Callable[[int], bool], stall_seconds: float
) -> None:
    """Fetch [start, end) into `path`; `arrived` is told the position and answers whether to go on.

    Raises:
        TransientError: the process failed, or nothing arrived for `stall_seconds`; it was killed.
    """
    order = {**xet, "path": str(path), "start": span[0], "end": span[1]}
    complaints = tempfile.TemporaryFile()  # noqa: SIM115
    child = subprocess.Popen(
        [sys.executable, "-m", "hearmeman.models.xet"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        child.stdin.write(json.dumps(order).encode() + b"\n")
        child.stdin.flush()
        position, rest = span[0], b""
        while position < span[1]:
            if not select.select([child.stdout], [], [], stall_seconds)[0]:
                raise TransientError(f"Xet: nothing arrived for {stall_seconds:g} s")
            data = os.read(child.stdout.fileno(), 65536)
            if not data:
                child.wait(5)
                complaints.seek(0)
                lines = complaints.read().decode("utf-8", "replace").strip().splitlines()
                raise TransientError(f"Xet: {lines[-1][:200] if lines else f'ended with {child.returncode}'}")
            *lines_in, rest = (rest + data).split(b"\n")
            if lines_in:
                position = int(lines_in[-1])
                if not arrived(position):
                    return
    except BrokenPipeError as error:
        raise TransientError("Xet: its process ended at once") from error
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout, complaints):
            with contextlib.suppress(OSError):
                pipe.close()


def _main() -> None:
    import hf_xet  # type: ignore[import-untyped]

    order = json.loads(sys.stdin.readline())
    # Standard input closes when the parent dies, however it dies.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    descriptor = os.open(order["path"], os.O_WRONLY)
    group = hf_xet.XetSession().new_download_stream_group(
        token_refresh_url=order["refresh"], token_refresh_headers=order["headers"]
    )
    info = hf_xet.XetFileInfo(order["hash"], order["size"])
    position, told = order["start"], 0.0
    for data in group.download_stream(info, start=order["start"], end=order["end"]):
        view = memoryview(data)
        while view:
            count = os.pwrite(descriptor, view, position)
            position, view = position + count, view[count:]
        if time.monotonic() - told > 0.1:
            told = time.monotonic()
            print(position, flush=True)
    print(position, flush=True)


if __name__ == "__main__":
    _main()
