"""Starts `hearmeman sync` as its own process and as the pod's user for it, and watches what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hearmeman
from hearmeman.state_file import read_json
from hearmeman.users import SYNC, wrapped
from support.waiting import PATIENCE, wait_for

PYTHON = str(Path(hearmeman.__file__).parents[1])


def as_sync_user(argv: Sequence[str]) -> tuple[str, ...]:
    """Let a command run as the pod's user for the sync, with no more capabilities; a plain user stays who it is.

    Root's tests so write files that the daemon does not own, as in the pod.
    """
    if os.geteuid() == 0:
        return wrapped(argv, SYNC)
    return ("setpriv", "--pdeathsig", "KILL", "--", *argv)


class Sync:
    """One daemon on `output`, with its state in `state`."""

    def __init__(self, folder: Path, environ: Mapping[str, str], name: str = "pod") -> None:
        """Name its folders; nothing runs yet."""
        self.output, self.state = folder / "output", folder / name
        self.output.mkdir(parents=True, exist_ok=True)
        self.state.mkdir(parents=True, exist_ok=True)
        self.lines: list[str] = []
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": PYTHON,
            "PYTHONDONTWRITEBYTECODE": "1",
            "COMFYUI_OUTPUT_DIR": str(self.output),
            "STATE_DIR": str(self.state),
            **environ,
        }

    def start(self, before: Sequence[str] = (), **more: str) -> Sync:
        """Start the daemon as the pod does; `before` are words that start it instead."""
        command = [sys.executable, "-m", "hearmeman", "sync"]
        self.process = subprocess.Popen(
            [*before, *command] if before else as_sync_user(command),
            env={**self.environ, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.lines.append(line)

    def stop(self, seconds: float = PATIENCE) -> int:
        """SIGTERM and wait; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended(seconds)

    def ended(self, seconds: float = PATIENCE) -> int:
        """Wait until it has ended and the log holds all that it said; the exit code."""
        code = self.process.wait(seconds)
        self._reader.join(PATIENCE)
        return code

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """Everything that it said."""
        return "".join(list(self.lines))

    def report(self) -> dict[str, Any]:
        """Its state file; empty before the daemon has first written it."""
        return read_json(self.state / "sync.json")

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until `condition`; if it ends before, raise with the log."""
        wait_for(condition, what, over=self._is_over, said=self.log)

    def wait_said(self, text: str) -> None:
        """Wait until the log holds `text`."""
        self.wait_for(lambda: text in self.log(), f"{text!r} in the log")

    def _is_over(self) -> bool:
        """Whether it has ended and the log holds all that it said."""
        return self.process.poll() is not None and not self._reader.is_alive()
