"""Lets one process at a time fetch into a models folder, be it on this machine or in another pod on the same volume."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from hearmeman.models.errors import LeaseLostError
from hearmeman.state_file import read_json

BEAT_SECONDS = 5.0
DEAD_SECONDS = 60.0
"""A holder that has not beaten for so long, by the waiter's own clock, is taken for dead."""


class Lease:
    """A file that its holder keeps changing. Locks of the kernel do not reach other pods; this does.

    `waiting` is called again and again with the holder's own words while someone else has it.
    """

    def __init__(
        self,
        path: Path,
        owner: str,
        waiting: Callable[[dict[str, Any]], None],
        beat_seconds: float = BEAT_SECONDS,
        dead_seconds: float = DEAD_SECONDS,
    ) -> None:
        self.path, self.waiting = path, waiting
        self.beat_seconds, self.dead_seconds = beat_seconds, dead_seconds
        self.words = {"owner": owner, "host": os.uname().nodename, "pid": os.getpid(), "began": _began(os.getpid())}
        self._descriptor = -1
        self._stop = threading.Event()

    def __enter__(self) -> Lease:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        seen, since = "", time.monotonic()
        while not self._take():
            words = read_json(self.path)
            text = json.dumps(words)
            if text != seen:
                seen, since = text, time.monotonic()
            if self._is_gone(words) or time.monotonic() - since > self.dead_seconds:
                self._take_over(words)
                continue
            self.waiting(words)
            time.sleep(min(0.5, self.beat_seconds))
        threading.Thread(target=self._beat, name="lease", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self.held():
            self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def held(self) -> bool:
        """Tell whether it is still ours."""
        try:
            return os.stat(self.path).st_ino == os.fstat(self._descriptor).st_ino  # noqa: PTH116
        except OSError:
            return False

    def require(self) -> None:
        """Raise LeaseLostError if it is not ours any more."""
        if not self.held():
            raise LeaseLostError(
                "another pod has taken over the models folder, since this one stood still for too long"
            )

    def _take(self) -> bool:
        # A link appears with its content or not at all; O_EXCL alone would show an empty file first.
        beside = self.path.with_name(f".lease-{os.getpid()}-{time.monotonic_ns()}")
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.pwrite(descriptor, self._text(0), 0)
            os.link(beside, self.path)
        except FileExistsError:
            os.close(descriptor)
            return False
        finally:
            beside.unlink()
        self._descriptor = descriptor
        return True

    def _take_over(self, words: dict[str, Any]) -> None:
        """Remove a dead holder's lease; of several who try, one moves it and looks whether it moved the right one."""
        guard = os.open(self.path.with_name(".lease-guard"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # One at a time, where the filesystem has locks: a late one would move the next holder's lease.
            with contextlib.suppress(OSError):
                fcntl.flock(guard, fcntl.LOCK_EX)
            if read_json(self.path) == words:
                self._move_aside(words)
        finally:
            os.close(guard)

    def _move_aside(self, words: dict[str, Any]) -> None:
        aside = self.path.with_name(f".dead-{os.getpid()}-{time.monotonic_ns()}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
            if read_json(aside) != words:
                with contextlib.suppress(OSError):
                    os.link(aside, self.path)
            aside.unlink()

    def _is_gone(self, words: dict[str, Any]) -> bool:
        """Tell whether the holder was a process of this machine that does not run any more."""
        if words.get("host") != self.words["host"] or words.get("owner") != self.words["owner"]:
            return False
        pid = words.get("pid")
        return isinstance(pid, int) and _began(pid) != words.get("began")

    def _beat(self) -> None:
        number = 0
        while not self._stop.wait(self.beat_seconds):
            number += 1
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, self._text(number), 0)

    def _text(self, beat: int) -> bytes:
        return json.dumps({**self.words, "beat": f"{beat:010d}"}).encode()


def _began(pid: int) -> int:
    """When a process began, in the kernel's ticks; 0 if there is none of that number."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
