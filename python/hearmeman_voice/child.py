"""The process an engine runs in: it loads, speaks what it is sent, stops when asked, and ends with its server.

A process of its own is what gives all memory back when it ends, on the GPU too, and it keeps a crash or a failed CUDA
assertion away from the server. `python -m hearmeman_voice.child FD SPEC` speaks over the socket FD: messages are JSON
objects with `kind`, and sound.
"""

import ctypes
import hashlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from hearmeman_voice.engine import Engine, Request, Samples, Spec
from hearmeman_voice.line import Line
from hearmeman_voice.log import log, start_log
from hearmeman_voice.refusals import Failed, Refused

BROKEN = 70
"""Exit status when the engine can no longer run in this process."""
_LONGEST = 1 << 20
"""Samples of one message: 4 MiB, and half a minute at least."""
_FATAL = ("cuda error", "device-side assert", "cublas_status", "cudnn_status", "cuda driver")


class Voicebox:
    """An engine, and the connection to its server."""

    def __init__(self, engine: Engine, line: Line) -> None:
        self._engine, self._line = engine, line
        self._asked: queue.SimpleQueue[tuple[int, Request]] = queue.SimpleQueue()
        self._stopped = 0

    def run(self) -> None:
        """Load and speak until the server is gone."""
        threading.Thread(target=self._listen, name="line", daemon=True).start()
        began = time.monotonic()
        try:
            self._engine.load()
        except Exception as problem:
            log("engine.not_loaded", error=problem, name=self._engine.name)
            self._send(kind="unloadable", message=_in_words(problem))
            return
        self._send(kind="loaded", seconds=time.monotonic() - began, vram=_vram())
        threading.Thread(target=self._identify, name="hash", daemon=True).start()
        while True:
            self._speak(*self._asked.get())

    def _listen(self) -> None:
        try:
            while True:
                message = self._line.receive()
                assert isinstance(message, dict), "a server sends words"
                if message["kind"] == "speak":
                    self._asked.put((message["number"], Request.from_json(message["request"])))
                else:
                    self._stopped = max(self._stopped, message["number"])
        except (EOFError, OSError):
            # The server is gone, so there is nobody left to speak for.
            os._exit(0)

    def _identify(self) -> None:
        try:
            self._send(kind="weights", sha256=_hash(self._engine.weight_files()))
        except OSError as problem:
            log("weights.not_hashed", why=problem)

    def _speak(self, number: int, request: Request) -> None:
        def stopped() -> bool:
            return self._stopped >= number

        try:
            if not stopped():
                for block in self._engine.synthesize(request, stopped):
                    if stopped():
                        break
                    self._sound(block)
        except Refused as problem:
            self._send(kind="refused", param=problem.param, message=problem.message, code=problem.code)
        except Failed as problem:
            self._send(kind="failed", message=problem.message)
        except Exception as problem:
            log("engine.failed", error=problem, name=self._engine.name)
            broken = is_fatal(problem)
            self._send(kind="broken" if broken else "failed", message=_in_words(problem))
            if broken:
                os._exit(BROKEN)
            _empty_cache()
        else:
            self._send(kind="spoken", vram=_vram())

    def _sound(self, block: Samples) -> None:
        for begin in range(0, len(block), _LONGEST):
            self._line.send_sound(block[begin : begin + _LONGEST])

    def _send(self, **message: Any) -> None:
        self._line.send(message)


def is_fatal(problem: BaseException) -> bool:
    """Whether this error makes the GPU unusable for the process; running out of memory does not."""
    if type(problem).__name__ == "OutOfMemoryError":
        return False
    text = f"{type(problem).__name__}: {problem}".lower()
    return isinstance(problem, RuntimeError) and any(sign in text for sign in _FATAL)


def _in_words(problem: BaseException) -> str:
    if type(problem).__name__ == "OutOfMemoryError" or isinstance(problem, MemoryError):
        return "memory ran out: something else is using it; try again, or with a shorter text"
    first = str(problem).strip().splitlines()[:1]
    return f"{type(problem).__name__}: {first[0][:300]}" if first else type(problem).__name__


def _hash(files: tuple[Path, ...]) -> str | None:
    """SHA-256 of the weights: of the file if there is only one, otherwise of all files' hashes in order."""
    found = []
    for path in files:
        with path.open("rb") as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(found) > 1:
        return hashlib.sha256("\n".join(found).encode()).hexdigest()
    return found[0] if found else None


def _torch() -> Any:
    return sys.modules.get("torch")


def _vram() -> int:
    """Bytes that this process holds on its GPU, as torch counts them."""
    torch = _torch()
    return int(torch.cuda.memory_reserved()) if torch and torch.cuda.is_available() else 0


def _empty_cache() -> None:
    torch = _torch()
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _end_with_parent() -> None:
    # A hung engine would not see that its connection is closed. PR_SET_PDEATHSIG is 1.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Serve one engine; 1 when it could not be loaded."""
    # An interrupt from the terminal is for the server, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    start_log()
    engine = Spec.from_json(json.loads(arguments[1])).make()
    Voicebox(engine, Line(socket.socket(fileno=int(arguments[0])))).run()
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
