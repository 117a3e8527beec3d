"""The bytes of one staged file: which are there, which a connection is bringing, and the note that survives a kill."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from hearmeman.models.hashing import Front
from hearmeman.models.journal import Journal
from hearmeman.models.spans import ENDLESS, Part, Spans


class Content:
    """A staged file. `lock` is its owner's; what says so is called with it held."""

    def __init__(self, path: Path, journal: Path, lock: threading.Condition) -> None:
        self.path = path
        self.journal = Journal(journal)
        self.lock = lock
        self.descriptor = -1
        self.attempt = 0
        """Counts how often it was begun again; what was asked for before is not written any more."""
        self.more = threading.Event()
        """Set whenever there may be something new to hash."""
        self.etag = ""
        """What the next answer's tag must be; empty where the hash is known, or nothing has come."""
        self._spans: Spans | None = None

    @property
    def opened(self) -> bool:
        """Whether it was opened."""
        return self._spans is not None

    @property
    def spans(self) -> Spans:
        """Its ranges."""
        assert self._spans is not None
        return self._spans

    @property
    def done(self) -> int:
        """Bytes that are there."""
        return self._spans.done if self._spans is not None else 0

    @property
    def size(self) -> int:
        """Bytes of the whole; 0 when no one has stated it."""
        return self.spans.size if self.opened and self.spans.size != ENDLESS else 0

    def open(self, size: int | None, sha256: str) -> bool:
        """Open or create it for content of that size and hash; True if a part of the same content is there already."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        self.journal.name(size, sha256)
        if size is None:
            self.journal.size = size = self.journal.recall()
        missing = self.journal.read(os.fstat(self.descriptor).st_size)
        self.etag = "" if sha256 else self.journal.etag
        self._spans = Spans(size or ENDLESS, missing)
        os.ftruncate(self.descriptor, size or 0)
        return missing is not None

    def tag(self, etag: str) -> None:
        """Take in the tag of an answer; the lock is held."""
        self.journal.etag = etag
        if not self.journal.sha256:
            self.etag = etag

    def resize(self, size: int) -> None:
        """Learn the size; the lock is held."""
        self.journal.name(size, self.journal.sha256)
        self.spans.resize(size)
        if self.spans.done < size:
            os.ftruncate(self.descriptor, size)

    def write(self, part: Part, data: bytes, attempt: int) -> bool:
        """Write what a connection brought; False when it was begun again meanwhile."""
        with self.lock:
            if attempt != self.attempt:
                return False
            view = memoryview(data)[: part.claim(len(data))]
        written = 0
        while written < len(view):
            written += os.pwrite(self.descriptor, view[written:], part.pos + written)
        return self.reach(part, part.pos + len(view), attempt)

    def reach(self, part: Part, position: int, attempt: int) -> bool:
        """Take in that all of a part before `position` was written; False when it was begun again meanwhile."""
        with self.lock:
            if attempt != self.attempt:
                return False
            part.pos = position
        self.more.set()
        self.note()
        return True

    def give_back(self, part: Part) -> None:
        """Take a range back from its connection."""
        with self.lock:
            # Who began again has taken it already.
            if part in self.spans.active:
                self.spans.give_back(part)

    def begin_again(self, attempt: int) -> None:
        """Forget what is there; the lock is held."""
        self.attempt = attempt
        self.spans.restart()
        self.etag = ""
        self.more.set()

    def become(self, size: int | None, sha256: str) -> None:
        """Take it for another content of which nothing is there, as far as that is known; the lock is held."""
        self.journal.name(size, sha256)
        self.spans.size = size or ENDLESS
        self.spans.restart()

    def note(self, force: bool = False) -> None:
        """Note what has arrived, if it is time."""
        if self.opened and (force or self.journal.due()):
            with self.lock:
                missing, done = self.spans.missing, self.spans.done
            self.journal.write(missing, done)

    def front(self) -> Front:
        """Tell how far it is; the lock is held."""
        return Front(self.attempt, self.spans.frontier, self.spans.complete)
