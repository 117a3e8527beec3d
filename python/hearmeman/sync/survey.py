"""Looks through the output folder a little at a time: all of it, or only the folders that have changed."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hearmeman.sync.tree import Names, Seen, seen

if TYPE_CHECKING:
    from os import _ScandirIterator as ScandirIterator

_BATCH = 256
_COARSE_NS = 2_000_000_000
"""A folder that changed so shortly before it was read may change again without a new time."""

Batch = list[tuple[str, Seen]]


class Survey:
    """Walks over one folder; never follows a link, leaves out what vanishes meanwhile."""

    def __init__(
        self,
        root: Path,
        names: Names,
        observe: Callable[[str, Seen], None],
        known: Callable[[str], bool],
        enter: Callable[[str], None] = lambda folder: None,
    ) -> None:
        """Look below `root`, which is no link; each output found is handed to `observe`.

        `known` says which paths a look at changed folders can leave out; `enter` is called with each folder before it is
        read.
        """
        self.root, self.names, self.observe, self.known, self.enter = root, names, observe, known, enter
        self.links: set[str] = set()
        self.unreadable: dict[str, str] = {}
        self._changed_ns: dict[str, int] = {}
        self._walks: deque[Iterator[Batch]] = deque()

    @property
    def busy(self) -> bool:
        """Whether something that was asked for is not looked through yet."""
        return bool(self._walks)

    def ask_all(self, ended: Callable[[set[str]], None]) -> None:
        """Look through everything; `ended` is given the paths that were found."""
        self._walks.append(self._all(ended))

    def ask_changed(self, ended: Callable[[], None]) -> None:
        """Look for new names in the folders whose own time has changed."""
        self._walks.appendleft(self._changed(ended))

    def ask_folder(self, relative: str) -> None:
        """Look through one folder and all below it."""
        self._walks.appendleft(self._below(relative))

    def advance(self, seconds: float) -> None:
        """Go on for about `seconds`."""
        end = time.monotonic() + seconds
        while self._walks and time.monotonic() < end:
            walk = self._walks[0]
            batch = next(walk, None)
            if batch is None:
                self._walks.remove(walk)
                continue
            for path, look in batch:
                self.observe(path, look)

    def _all(self, ended: Callable[[set[str]], None]) -> Iterator[Batch]:
        found: set[str] = set()
        self.links.clear()
        self.unreadable.clear()
        for batch in self._below(""):
            found.update(path for path, _ in batch)
            yield batch
        ended(found)

    def _changed(self, ended: Callable[[], None]) -> Iterator[Batch]:
        for folder, known in list(self._changed_ns.items()):
            try:
                if os.lstat(self.root / folder).st_mtime_ns != known:
                    yield from self._below(folder, new_only=True)
            except OSError:
                self._changed_ns.pop(folder, None)
        ended()

    def _below(self, start: str, new_only: bool = False) -> Iterator[Batch]:
        """Read the folder `start` and those below it; with `new_only`, only files and folders that are not known yet."""
        waiting = [start]
        while waiting:
            folder = waiting.pop()
            began = time.time_ns()
            self.enter(folder)
            try:
                status = os.lstat(self.root / folder)
                if not stat.S_ISDIR(status.st_mode):
                    continue
                entries = os.scandir(self.root / folder)
            except (FileNotFoundError, NotADirectoryError):
                self._changed_ns.pop(folder, None)
                continue
            except OSError as error:
                self.unreadable[folder] = error.strerror or str(error)
                continue
            settled = began - status.st_mtime_ns > _COARSE_NS
            self._changed_ns[folder] = status.st_mtime_ns if settled else 0
            try:
                yield from self._entries(folder, entries, waiting, new_only)
            except OSError as error:
                self.unreadable[folder] = error.strerror or str(error)

    def _entries(
        self, folder: str, entries: ScandirIterator[str], waiting: list[str], new_only: bool
    ) -> Iterator[Batch]:
        """Read one folder; the folders in it are added to `waiting`."""
        batch: Batch = []
        with entries:
            for looked_at, entry in enumerate(entries, 1):
                relative = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink():
                    self.links.add(relative)
                elif entry.is_dir(follow_symlinks=False):
                    if self.names.folder(entry.name) and not (new_only and relative in self._changed_ns):
                        waiting.append(relative)
                elif self.names.file(entry.name) and not (new_only and self.known(relative)):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            batch.append((relative, seen(status)))
                if looked_at % _BATCH == 0:
                    yield batch
                    batch = []
        yield batch
