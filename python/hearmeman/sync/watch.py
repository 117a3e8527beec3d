"""Reads the kernel's own news (inotify) of the output folder: what is written, closed, moved into place, made.

The kernel tells a file's close to whoever watches its folder, whatever its owner; a lease (fcntl(2), F_SETLEASE) would
need the owner or CAP_LEASE, and sends a deadly signal. A folder is watched alone, without those in it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from hearmeman.sync.finished import Writer

# inotify(7), linux/inotify.h
_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_ONLYDIR, _DONT_FOLLOW, _EXCL_UNLINK, _ISDIR = 0x1000000, 0x2000000, 0x4000000, 0x40000000
_MASK = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_EVENT = struct.Struct("iIII")
_BUFFER = 256 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class News:
    """What has happened since the last look."""

    files: dict[str, Writer | None] = field(default_factory=dict)
    """Path -> what its writer did last; None: something else about it changed."""
    folders: list[str] = field(default_factory=list)
    """Folders that were made or moved in, and may hold files by now."""
    lost: bool = False
    """Whether the kernel had more to tell than it could keep."""


class Watch:
    """Watches folders below `root`; every path is relative to it. Not for more than one thread."""

    def __init__(self, root: Path) -> None:
        """Start with no folder; where the kernel has no watcher to give, `problem` says so and there is no news."""
        self.root = root
        self.unwatched: set[str] = set()
        self.problem = ""
        self._folders: dict[int, str] = {}
        self._open: set[str] = set()
        self._moved: dict[int, tuple[str, bool]] = {}
        self.descriptor: int = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.descriptor < 0:
            self.problem = _why(ctypes.get_errno())

    def add(self, folder: str) -> None:
        """Watch one folder; to be called before it is read, so that nothing falls between."""
        if self.descriptor < 0:
            return
        path = os.fsencode(self.root / folder)
        watch = _libc.inotify_add_watch(self.descriptor, path, _MASK | _ONLYDIR | _DONT_FOLLOW | _EXCL_UNLINK)
        if watch >= 0:
            self._folders[watch] = folder
            self.unwatched.discard(folder)
            if not self.unwatched:
                self.problem = ""
        elif (number := ctypes.get_errno()) not in (errno.ENOENT, errno.ENOTDIR):
            self.unwatched.add(folder)
            self.problem = _why(number)

    def read(self) -> News:
        """Give what has happened; never waits."""
        news = News()
        while True:
            try:
                buffer = os.read(self.descriptor, _BUFFER) if self.descriptor >= 0 else b""
            except BlockingIOError:
                return news
            if not buffer:
                return news
            at = 0
            while at < len(buffer):
                watch, mask, cookie, length = _EVENT.unpack_from(buffer, at)
                at += _EVENT.size + length
                self._take(news, watch, mask, cookie, buffer[at - length : at].rstrip(b"\0"))

    def close(self) -> None:
        """Give the watcher back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _take(self, news: News, watch: int, mask: int, cookie: int, name: bytes) -> None:
        if mask & _OVERFLOW:
            self._open.clear()
            news.lost = True
            return
        if mask & _IGNORED:
            self._folders.pop(watch, None)
            return
        folder = self._folders.get(watch)
        if folder is None or not name:
            return
        path = f"{folder}/{os.fsdecode(name)}" if folder else os.fsdecode(name)
        if mask & _ISDIR:
            self._take_folder(news, mask, cookie, path)
        else:
            self._take_file(news, mask, cookie, path)

    def _take_file(self, news: News, mask: int, cookie: int, path: str) -> None:
        writer: Writer | None = None
        if mask & _MODIFY:
            self._open.add(path)
            writer = Writer.OPEN
        elif mask & _CLOSE_WRITE:
            self._open.discard(path)
            writer = Writer.CLOSED
        elif mask & _MOVED_FROM:
            self._note_move(cookie, path, path in self._open)
            self._open.discard(path)
        elif mask & _MOVED_TO:
            # One that is moved while it is written stays open; its close will be told under the new name.
            if self._moved.pop(cookie, ("", False))[1]:
                self._open.add(path)
                writer = Writer.OPEN
            else:
                self._open.discard(path)
                writer = Writer.CLOSED
        elif mask & _DELETE:
            self._open.discard(path)
        if writer is None:
            news.files.setdefault(path, None)
        else:
            news.files[path] = writer

    def _take_folder(self, news: News, mask: int, cookie: int, path: str) -> None:
        if mask & _MOVED_FROM:
            self._note_move(cookie, path, False)
        elif mask & _MOVED_TO:
            before = self._moved.pop(cookie, ("", False))[0]
            if before:
                # Its watches stay with it under their new names.
                for watch, folder in self._folders.items():
                    if folder == before or folder.startswith(f"{before}/"):
                        self._folders[watch] = path + folder.removeprefix(before)
        if mask & (_CREATE | _MOVED_TO):
            news.folders.append(path)

    def _note_move(self, cookie: int, path: str, is_open: bool) -> None:
        if len(self._moved) > 1000:  # Those that left the folder for good.
            self._moved.clear()
        self._moved[cookie] = path, is_open


def _why(number: int) -> str:
    limit = {errno.ENOSPC: "watches", errno.EMFILE: "instances"}.get(number)
    if limit is None:
        return os.strerror(number)
    return f"this machine's limit of inotify {limit} is reached: raise it on the host with sysctl fs.inotify.max_user_{limit}"
