"""A process's output: each line with its name before it to standard output, with its time to a log file rotated by size."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hearmeman.log import line, stamp
from hearmeman.redact import redact_line

LOG_BYTES = 10 * 1024**2
KEPT_LOGS = 3
"""Old log files beside the current one: NAME.log.1 is the newest of them."""
LONGEST_LINE = 64 * 1024
_STAMPED = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z ")
LAST_CHARACTERS = 500
MOST_NOTES = 50
# Root writes here: never through a link.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Output:
    """Lines of a process: its name before each to stdout, the time before each to a log file that is rotated by size.

    Standard output has no times of ours: what shows a container's log adds its own.
    """

    def __init__(self, name: str, log: Path, note: str = "", clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.prefix = f"[{name}] ".encode()
        self.log = log
        self.rest = b""
        self.last = ""
        """The process's last line that is not empty, for who asks why it ended."""
        self.note = re.compile(note) if note else None
        self.notes: list[str] = []
        """Lines that match `note`, the first few."""
        self.broken = False
        self.log_failed = False

    def feed(self, data: bytes) -> None:
        """Take what the process wrote; whole lines go on, of a line redrawn with carriage returns the last state."""
        *lines, rest = (self.rest + data).split(b"\n")
        for text in lines:
            self._line(_last_drawn(text.rstrip(b"\r")))
        self.rest = _last_drawn(rest)
        if len(self.rest) > LONGEST_LINE:
            self.flush()

    @property
    def drawn(self) -> str:
        """What the process is redrawing in one line now, such as a progress bar; empty when it is not."""
        return redact_line(self.rest).decode("utf-8", "replace").strip()[:LAST_CHARACTERS]

    def flush(self) -> None:
        """Write a last line that has no end."""
        if self.rest:
            self._line(self.rest)
            self.rest = b""

    def _line(self, text: bytes) -> None:
        if text.strip():
            self.last = redact_line(text).decode("utf-8", "replace").strip()[:LAST_CHARACTERS]
            if self.note and len(self.notes) < MOST_NOTES and self.note.search(self.last):
                self.notes.append(self.last)
        self.write(text)

    def write(self, text: bytes) -> None:
        """Write one line to both places; a full disk stops the log file and not the process."""
        text = redact_line(text)
        try:
            sys.stdout.buffer.write(self.prefix + text + b"\n")
            sys.stdout.buffer.flush()
        except (BrokenPipeError, ValueError):
            self.broken = True
        try:
            if not _STAMPED.match(text):
                text = f"{stamp(self.clock(), 3)} ".encode() + text
            if self.log.exists() and self.log.stat().st_size + len(text) > LOG_BYTES:
                self._rotate()
            with os.fdopen(os.open(self.log, _APPEND, 0o644), "ab") as file:
                file.write(text + b"\n")
            self.log_failed = False
        except OSError as error:
            if not self.log_failed:
                self.log_failed = True
                warning = line("log.unwritable", {"file": self.log, "why": error.strerror}, time.time())
                with contextlib.suppress(OSError, ValueError):
                    sys.stdout.buffer.write(self.prefix + warning.encode() + b"\n")
                    sys.stdout.buffer.flush()

    def _rotate(self) -> None:
        names = [self.log, *(self.log.with_name(f"{self.log.name}.{number}") for number in range(1, KEPT_LOGS + 1))]
        for newer, older in reversed(list(itertools.pairwise(names))):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)


def _last_drawn(text: bytes) -> bytes:
    # A carriage return at the very end may be the first half of "\r\n".
    kept = text[:-1] if text.endswith(b"\r") else text
    return kept.rsplit(b"\r", 1)[-1] + text[len(kept) :]
