"""Reads a file that is already at its place, to see whether it is what the catalogue names."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from hearmeman.log import log
from hearmeman.models.catalogue import File
from hearmeman.models.errors import CorruptError, ExpiredError, FetchError, TransientError
from hearmeman.models.http import Http
from hearmeman.models.verify import check

AT_ONCE = threading.BoundedSemaphore(2)
"""Reading more files at once makes none of them faster."""


class Check:
    """One file to read; `right` is told its hash ("" where its source did not answer), `wrong` what differs."""

    def __init__(
        self,
        file: File,
        path: Path,
        lock: threading.Condition,
        right: Callable[[str], None],
        wrong: Callable[[str], None],
        learn: Callable[[File], File],
    ) -> None:
        self.file, self.path, self.lock = file, path, lock
        self.over = False
        self._begun = False
        self._right, self._wrong, self._learn = right, wrong, learn

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
        file, compared = self.file, True
        try:
            try:
                file = self._learn(file)
            except (FetchError, TransientError, ExpiredError) as error:
                # It is there and may be right; the next start asks again.
                log("model.uncompared", file=file.to, why=error, then="using it, since its format is right")
                compared = False
            digest = check(self.path, file.size, file.sha256, file.blob, file.about)
        except (CorruptError, OSError) as error:
            self._wrong(str(error))
        else:
            self._right(digest if compared else "")
        finally:
            AT_ONCE.release()
            with self.lock:
                self.over = True
                self.lock.notify_all()
