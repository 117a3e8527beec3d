"""Signs that a file is finished: nobody has it open for writing, and its end is where its format says."""

from __future__ import annotations

import enum
import fcntl
import os
import struct
from pathlib import Path


class Sign(enum.Enum):
    """What is known of a file that is still."""

    OPEN = "some process has it open for writing"
    HALF = "its format says that its end is missing"
    NONE = "nothing can be told"
    CLOSED = "nobody has it open for writing"
    WHOLE = "its format says that it is whole"


def sign(path: Path) -> Sign:
    """Look for signs; a file that cannot be opened has none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return Sign.NONE
    try:
        if is_open := open_for_writing(descriptor):
            return Sign.OPEN
        whole = looks_whole(descriptor, os.fstat(descriptor).st_size)
        if whole is not None:
            return Sign.WHOLE if whole else Sign.HALF
        return Sign.NONE if is_open is None else Sign.CLOSED
    except OSError:
        return Sign.NONE
    finally:
        os.close(descriptor)  # Gives a lease back too.


def open_for_writing(descriptor: int) -> bool | None:
    """Tell whether some process has the file open for writing; None where the system does not tell.

    A read lease (fcntl(2), F_SETLEASE) is granted only while nobody has, and only to the file's owner or with
    CAP_LEASE. Network filesystems grant none.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def looks_whole(descriptor: int, size: int) -> bool | None:
    """Tell from its first and last bytes whether the file is whole; None for formats that do not say.

    Writers of WAV, WebM and FLAC put lengths and sums into the beginning when they come to the end.
    """
    head = os.pread(descriptor, 64, 0)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return os.pread(descriptor, 12, max(size - 12, 0)) == b"\0\0\0\0IEND\xaeB`\x82"
    if head.startswith(b"RIFF") and len(head) >= 12:  # WebP, WAV
        said: int = struct.unpack_from("<I", head, 4)[0]
        return size in (said + 8, said + 9)
    if head[4:8] == b"ftyp":
        return _boxes_end(descriptor, size)
    if head.startswith(b"\x1aE\xdf\xa3"):
        return _segment_ends(head, size)
    if head.startswith(b"fLaC") and len(head) >= 42:
        return any(head[26:42])  # The md5 of the sound.
    if head.startswith(b"\xff\xd8\xff") and os.pread(descriptor, 2, max(size - 2, 0)) == b"\xff\xd9":
        return True
    return None


def _segment_ends(head: bytes, size: int) -> bool:
    """Tell whether a WebM or Matroska file's one segment has a length and ends where the file does."""
    _, after = _length(head, 4)
    start = after + _length(head, 4)[0]
    if head[start : start + 4] != b"\x18S\x80g":
        return False
    length, after = _length(head, start + 4)
    return after + length == size


def _length(head: bytes, at: int) -> tuple[int, int]:
    """Read a Matroska length: (its value, where it ends); a length that is not known is no file's."""
    first = head[at] if at < len(head) else 0
    width = 9 - first.bit_length()
    digits = head[at : at + width]
    return int.from_bytes(digits, "big") & ((1 << 7 * width) - 1), at + width


def _boxes_end(descriptor: int, size: int) -> bool:
    """Walk over an MP4 file's top-level boxes: they must end where the file does, and one must be `moov`."""
    at, has_moov = 0, False
    for _ in range(10_000):
        if at == size:
            return has_moov
        head = os.pread(descriptor, 16, at)
        if len(head) < 8:
            return False
        length, kind = struct.unpack_from(">I4s", head)
        if length == 1 and len(head) == 16:
            length = struct.unpack_from(">Q", head, 8)[0]
        elif length == 0:  # To the end of the file.
            length = size - at
        if length < 8 or at + length > size:
            return False
        has_moov |= kind == b"moov"
        at += length
    return False
