"""Which files of the output folder are outputs, and what one looks like now."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hearmeman.errors import UsageError

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
        """Tell whether a folder is looked into: all but hidden ones."""
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


def names(extensions: str) -> Names:
    """Read a list of extensions separated by commas, with or without their dots.

    Raises:
        UsageError: it names none, or one that no file name can end with.
    """
    found = frozenset(word.strip().lstrip(".").lower() for word in extensions.split(",")) - {""}
    wrong = sorted(word for word in found if "/" in word or "." in word)
    if wrong or not found:
        what = f"names {', '.join(wrong)}" if wrong else "names nothing"
        raise UsageError(f"SYNC_EXTENSIONS={extensions!r} {what}: give extensions separated by commas, such as png,mp4")
    return Names(found)


def outputs(folder: Path, wanted: Names) -> Iterator[str]:
    """Name every output below `folder`, relative to it, in order; links are not followed."""
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if wanted.folder(name))
        for name in sorted(files):
            path = Path(where, name)
            if wanted.file(name) and path.is_file() and not path.is_symlink():
                yield str(path.relative_to(folder))


def look(root: Path, relative: str) -> Seen | None:
    """Look at one file again; None when it is gone, is a link or no plain file.

    Raises:
        OSError: it cannot be looked at.
    """
    try:
        status = os.lstat(root / relative)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return seen(status) if stat.S_ISREG(status.st_mode) else None


def seen(status: os.stat_result) -> Seen:
    """Keep what matters of a stat result."""
    return Seen(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)
