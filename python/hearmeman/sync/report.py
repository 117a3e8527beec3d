"""The state file: backlog, last success, last error, for `hearmeman sync status`, `hearmeman status` and people."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from hearmeman.state_file import write_json

INTERVAL = 0.5
"""Seconds between two writes of the file."""


class Report:
    """Facts about the running sync, written to a JSON file when they have changed."""

    def __init__(self, path: Path, **facts: object) -> None:
        """Start with `facts`; nothing is written yet."""
        self.path = path
        self.facts: dict[str, object] = {"pid": os.getpid(), "started": time.time(), **facts}
        self.problem = ""
        self._written: dict[str, object] = {}
        self._at = 0.0

    @property
    def due_at(self) -> float:
        """When the file may be written again, by the clock of `write`."""
        return self._at + INTERVAL

    def note(self, **facts: object) -> None:
        """Change facts; the next write has them."""
        self.facts.update(facts)

    def write(self, now: float) -> None:
        """Write what has changed at clock `now`; a full disk does not stop the sync."""
        if self.facts == self._written:
            return
        try:
            write_json(self.path, {**self.facts, "updated": time.time()}, durable=False)
            self.problem = ""
        except OSError as error:
            self.problem = error.strerror or str(error)
        self._written, self._at = dict(self.facts), now


def lock(path: Path) -> IO[bytes] | None:
    """Take the lock of one state folder, for as long as the answer is open; None if another process has it.

    The file names that process. A filesystem without locks lets every process have it.
    """
    # Without a buffer: what did not fit on the disk is not tried again when it is closed.
    file = path.open("ab+", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        pass
    file.truncate(0)
    file.write(b"%d\n" % os.getpid())
    return file
