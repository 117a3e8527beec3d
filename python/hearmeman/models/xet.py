"""Fetches bytes through Hugging Face's Xet storage, in a process of its own, since it may hang and is then killed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

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
    # Its standard output is not ours alone: the Xet client logs there when it finds no place for a log file.
    told, telling = os.pipe()
    order = {**xet, "path": str(path), "start": span[0], "end": span[1], "telling": telling}
    complaints = tempfile.TemporaryFile()  # noqa: SIM115
    child = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("xet_process.py"))],
        stdin=subprocess.PIPE,
        stdout=complaints,
        stderr=complaints,
        pass_fds=[telling],
    )
    os.close(telling)
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(order).encode() + b"\n")
        child.stdin.flush()
        position, rest = span[0], b""
        while position < span[1]:
            if not select.select([told], [], [], stall_seconds)[0]:
                raise TransientError(f"Xet: nothing arrived for {stall_seconds:g} s")
            data = os.read(told, 65536)
            if not data:
                child.wait(5)
                raise TransientError(f"Xet: {_last_words(complaints) or f'ended with {child.returncode}'}")
            *lines, rest = (rest + data).split(b"\n")
            if lines:
                position = int(lines[-1])
                if not arrived(position):
                    return
    except BrokenPipeError as error:
        raise TransientError("Xet: its process ended at once") from error
    finally:
        child.kill()
        child.wait()
        os.close(told)
        for pipe in (child.stdin, complaints):
            with contextlib.suppress(OSError):
                pipe.close()


def _last_words(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    lines = complaints.read().decode("utf-8", "replace").strip().splitlines()
    # What begins with a brace is its log.
    spoken = [line for line in lines if not line.startswith("{")] or lines
    return spoken[-1][:200] if spoken else ""
