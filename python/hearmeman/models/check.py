"""Reads a file that is already at its place, to see whether it is what the catalogue names."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from hearmeman.models.catalogue import File
from hearmeman.models.errors import CorruptError
from hearmeman.models.http import Http
from hearmeman.models.verify import check

AT_ONCE = threading.BoundedSemaphore(2)
"""Reading more files at once makes none of them faster."""


class Check:
    """One file to read; `right` is told its hash, `wrong` what differs."""

    def __init__(
        self,
        file: File,
        path: Path,
        lock: threading.Condition,
        right: Callable[[str], None],
        wrong: Callable[[str], None],
    ) -> None:
        self.file, self.path, self.lock = file, path, lock
        self.over = False
        self._begun = False
        self._right, self._wrong = right, wrong

    @property
    def reading(self) -> bool:
        """Whether a thread is at it."""
        return self._begun and not self.over

    def wants_connection(self, spare: bool = False) -> bool:
        """Tell whether no thread has begun and one may."""
        if self._begun or not AT_ONCE.acquire(blocking=False):
            return False
        AT_ONCE.release()
        return True

    def join(self) -> None:
        """Announce the thread."""
        self._begun = True
        AT_ONCE.acquire()

    def work(self, http: Http) -> None:
        """Read the file."""
        try:
            digest = check(self.path, self.file.size, self.file.sha256, self.file.blob, self.file.about)
        except (CorruptError, OSError) as error:
            self._wrong(str(error))
        else:
            self._right(digest)
        finally:
            AT_ONCE.release()
            with self.lock:
                self.over = True
                self.lock.notify_all()
