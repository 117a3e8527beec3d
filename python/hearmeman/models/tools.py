"""What every file's way through a fetch uses: the folder, the sources, the cache, the lease, one lock, one clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hearmeman.models.cache import Cache
from hearmeman.models.catalogue import File
from hearmeman.models.lease import Lease
from hearmeman.models.remote import Remote, check_offer
from hearmeman.models.sources import Sources
from hearmeman.models.statements import Statements
from hearmeman.models.store import Store
from hearmeman.settings import Settings

READERS = 2
"""Files that are read at once to verify them: more would make none of them faster."""


@dataclass(frozen=True)
class Tools:
    """Shared by all files of one fetch, and by their threads."""

    settings: Settings
    """The pod's settings."""
    store: Store
    """The models folder."""
    sources: Sources
    """Where files come from."""
    statements: Statements
    """What they have stated, kept on the volume."""
    cache: Cache | None = None
    """The user's own bucket."""
    lease: Lease | None = None
    """What is asked before a file gets its place; None where nothing is to be fetched."""
    lock: threading.Condition = field(default_factory=threading.Condition)
    """Guards all that changes."""
    readers: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(READERS))
    """Who reads a file that is at its place."""
    clock: Callable[[], float] = time.monotonic
    """Seconds."""

    def locate(self, file: File, cached: bool) -> Remote:
        """Tell where a file's bytes are: in the cache, unless `cached` is false, else at its source.

        Raises:
            TransientError: worth asking again.
            FetchError: one of its leaves; the message names the file.
        """
        cache = self.cache if cached and self.cache is not None and self.cache.takes(file) else None
        if cache and file.sha256 and (found := cache.find(file.sha256, file.size)):
            return found
        remote = self.sources.resolve(file)
        check_offer(file, remote)
        self.statements.heard(file, remote)
        if cache and not file.sha256 and remote.sha256 and (found := cache.find(remote.sha256, remote.size)):
            return found
        return remote

    def place(self, file: File, digest: str, cached: bool) -> None:
        """Give a verified file its place, note that it was verified, and hand it to the cache.

        Raises:
            LeaseLostError: another pod is at the folder.
            OSError: the disk refuses.
        """
        if self.lease is not None:
            self.lease.require()
        self.store.accept(file, digest, str(file.source))
        self.statements.placed(file, digest, (self.store.root / file.to).stat().st_size)
        if self.cache is not None and not cached and self.cache.takes(file):
            self.cache.fill(self.store.root / file.to, digest)
