"""Looks at the output folder: which files are outputs, and what each looks like now."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TEMPORARY = (".tmp", ".temp", ".part", ".partial", ".incomplete")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a file looked like when it was looked at."""

    size: int
    """Bytes."""
    mtime_ns: int
    """Last change, nanoseconds since 1970."""
    inode: int
    """(With `device`) which file it is, so that a swapped one is noticed."""
    device: int
    """See `inode`."""


@dataclass(frozen=True)
class Names:
    """Which names are outputs."""

    extensions: frozenset[str]
    """Lower case, without the dot."""

    def folder(self, name: str) -> bool:
        """Tell whether a folder is looked into."""
        return not name.startswith(".")

    def file(self, name: str) -> bool:
        """Tell whether a file is an output: a wanted extension in any case, neither hidden nor temporary."""
        stem, _, extension = name.rpartition(".")
        return (
            extension.lower() in self.extensions
            and bool(stem)
            and not name.startswith((".", "~"))
            and not stem.lower().endswith(_TEMPORARY)
        )

    def path(self, relative: str) -> bool:
        """Tell whether a path relative to the output folder is an output."""
        *folders, name = relative.split("/")
        return self.file(name) and all(self.folder(folder) for folder in folders)


def scan(
    root: Path, names: Names, below: str = "", on_link: Callable[[str], None] = lambda path: None
) -> Iterator[tuple[str, Seen]]:
    """Walk the folder `below` of `root`; links are told to `on_link` and never followed, what vanishes is left out.

    Raises:
        OSError: a folder cannot be read.
    """
    waiting = [below]
    while waiting:
        folder = waiting.pop()
        try:
            entries = os.scandir(root / folder if folder else root)
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                relative = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if names.folder(entry.name):
                        waiting.append(relative)
                elif entry.is_symlink():
                    on_link(relative)
                elif names.file(entry.name):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if stat.S_ISREG(status.st_mode):
                        yield relative, seen(status)


def look(root: Path, relative: str) -> Seen | None:
    """Look at one file again; None when it is gone, is a link or no plain file."""
    try:
        status = os.lstat(root / relative)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return seen(status) if stat.S_ISREG(status.st_mode) else None


def seen(status: os.stat_result) -> Seen:
    """Keep what matters of a stat result."""
    return Seen(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


def open_for_writing(path: Path) -> bool | None:
    """Tell whether some process has the file open for writing; None where the system cannot tell.

    A read lease (fcntl(2), F_SETLEASE) is granted only while nobody has. Network filesystems grant none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    else:
        return False
    finally:
        os.close(descriptor)  # Gives the lease back.
