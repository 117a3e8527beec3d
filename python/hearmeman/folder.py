"""Reads and writes below one folder without ever following a link out of it, whoever changes the folder meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_DEEPEST = 60
LINK = "it is a link, and links are not followed"


class Folder:
    """A folder, by a descriptor that stays on it."""

    def __init__(self, path: Path) -> None:
        """Open it; only its own last part may not be a link.

        Raises:
            OSError: it is not there, or is a link.
        """
        self.path = path
        self.descriptor = os.open(path, _DIRECTORY)
        self._making = threading.Lock()

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.descriptor)

    def files(
        self, top: str, wanted: Callable[[str], bool], left_out: Callable[[str, str], None] = lambda path, why: None
    ) -> Iterator[tuple[str, os.stat_result]]:
        """Give path and status of every plain file below the folder `top` that `wanted` takes, in no order.

        `left_out` is called with the path of each link and each folder that cannot be looked into, and why.
        """
        try:
            status = os.stat(top, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISLNK(status.st_mode):
            left_out(top, LINK)
        elif stat.S_ISDIR(status.st_mode):
            yield from self._files(self.descriptor, top, top, wanted, left_out, 1)

    def _files(
        self,
        above: int,
        name: str,
        where: str,
        wanted: Callable[[str], bool],
        left_out: Callable[[str, str], None],
        depth: int,
    ) -> Iterator[tuple[str, os.stat_result]]:
        try:
            descriptor = os.open(name, _DIRECTORY, dir_fd=above)
        except FileNotFoundError:
            return
        except OSError as error:  # A link by now, or closed to us.
            left_out(where, error.strerror or str(error))
            return
        folders = []
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    path = f"{where}/{entry.name}"
                    with contextlib.suppress(FileNotFoundError):
                        status = os.stat(entry.name, dir_fd=descriptor, follow_symlinks=False)
                        if stat.S_ISDIR(status.st_mode):
                            folders.append(entry.name)
                        elif stat.S_ISLNK(status.st_mode):
                            left_out(path, LINK)
                        elif stat.S_ISREG(status.st_mode) and wanted(path):
                            yield path, status
            for folder in folders:
                if depth < _DEEPEST:
                    yield from self._files(descriptor, folder, f"{where}/{folder}", wanted, left_out, depth + 1)
                else:
                    left_out(f"{where}/{folder}", "it is nested too deep")
        finally:
            os.close(descriptor)

    def open(self, path: str) -> int:
        """Open a plain file for reading; the descriptor is the caller's.

        Raises:
            OSError: it is not there, is no plain file, is or was reached by a link, or is another owner's by a hard link.
        """
        *folders, name = path.split("/")
        with self.inside(folders) as parent:
            descriptor = os.open(name, _READ, dir_fd=parent)
            status, owner = os.fstat(descriptor), os.fstat(parent).st_uid
        # A hard link into this folder would show what its maker may not read.
        stranger = status.st_nlink > 1 and status.st_uid != owner
        if not stat.S_ISREG(status.st_mode) or stranger:
            os.close(descriptor)
            raise OSError(
                errno.EPERM, "it is a hard link to another user's file" if stranger else "it is not a plain file"
            )
        return descriptor

    def has(self, path: str) -> bool:
        """Tell whether anything lies at `path`, a link that leads nowhere included."""
        *folders, name = path.split("/")
        try:
            with self.inside(folders) as parent:
                os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # Something else is in the way, so nothing may be put there.
        return True

    def add(self, path: str, fill: Callable[[int], None], mtime_ns: int) -> bool:
        """Make a new file that `fill` writes: beside its place, then put there whole. False if something is there.

        It, and each folder that is made for it, belongs to the owner of the folder that it lies in.

        Raises:
            OSError: it cannot be written, or a link or a file is in its way; nothing is left of it.
        """
        *folders, name = path.split("/")
        with self.inside(folders, make=True) as parent:
            beside = f".hearmeman-{secrets.token_hex(8)}"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(beside, flags, 0o600, dir_fd=parent)
            try:
                fill(descriptor)
                above = os.fstat(parent)
                os.fchmod(descriptor, 0o664 if above.st_mode & stat.S_IWGRP else 0o644)
                os.utime(descriptor, ns=(mtime_ns, mtime_ns))
                _give(descriptor, above)  # Last, since only an owner may do the others.
                os.fsync(descriptor)
                return _put(parent, beside, name)
            finally:
                os.close(descriptor)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(beside, dir_fd=parent)

    @contextlib.contextmanager
    def inside(self, folders: list[str], make: bool = False) -> Iterator[int]:
        """Open a folder below this one, part by part, for as long as the context lasts; `make` makes what is missing.

        Raises:
            OSError: it is not there, or one of its parts is a link or `..`.
        """
        if ".." in folders:
            raise OSError(errno.EPERM, "it leads out of its folder")
        current = os.dup(self.descriptor)
        try:
            for name in folders:
                if make:
                    # What another thread is making is not its owner's yet, and what is put into it would not be either.
                    with self._making, contextlib.suppress(FileExistsError):
                        _make(current, name)
                inner = os.open(name, _DIRECTORY, dir_fd=current)
                os.close(current)
                current = inner
            yield current
        finally:
            os.close(current)


def _make(parent: int, name: str) -> None:
    """Make a folder that belongs to the owner of the one that it lies in."""
    above = os.fstat(parent)
    os.mkdir(name, 0o700, dir_fd=parent)
    made = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        if os.fstat(made).st_uid == os.geteuid():  # Nobody has put another in its place.
            os.fchmod(made, stat.S_IMODE(above.st_mode) & 0o2775)
            _give(made, above)
    finally:
        os.close(made)


def _give(descriptor: int, above: os.stat_result) -> None:
    own = os.fstat(descriptor)
    if (own.st_uid, own.st_gid) == (above.st_uid, above.st_gid):
        return
    try:
        os.fchown(descriptor, above.st_uid, above.st_gid)
    except OSError as error:
        # Some filesystems keep no owners. Whose group it is may write it all the same.
        if error.errno not in (errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS) or own.st_gid != above.st_gid:
            raise


def _put(parent: int, beside: str, name: str) -> bool:
    """Give a finished file its name; a link, unlike a rename, never replaces what is there."""
    try:
        os.link(beside, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        # Some network filesystems have no hard links. There the moment between these two calls stays.
        try:
            os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
        else:
            return False
    return True


def names(descriptor: int) -> list[str]:
    """List what lies in an open folder."""
    with os.scandir(descriptor) as entries:
        return [entry.name for entry in entries]
