"""Decides whether a file is finished: what its writer did, what its format says, how long it has been still."""

from __future__ import annotations

import enum
import os
import struct
from pathlib import Path

from hearmeman.sync.tree import Seen

GRACE = 0.3
"""Seconds of stillness after a close: some writers open the file again at once, to add tags or to rewrite it."""
SHORTEST_SETTLE = 0.3
LONGEST_SETTLE = 10.0
COARSE_SETTLE = 2.2
"""How long a file must be still whose filesystem seems to keep times in whole seconds."""
BLIND_SETTLE = 15.0
"""Without a close and without a format that tells: longer than encoders pause between two frames (4 to 7 s seen)."""
ABANDONED = 60.0
"""A closed file that is empty or half is a placeholder or a crash's rest: its writer may come back for so long."""
PATIENCE = 300.0
"""For a half or empty file whose writer is unknown, and for a whole one that some process keeps open."""
OPEN_PATIENCE = 3600.0
"""For a half or empty file that some process keeps open."""
STOP_SETTLE = 5.0
"""At the stop the writers have ended: nothing that is not open is waited for longer than this."""


class Writer(enum.Enum):
    """What the kernel reported of the process that writes a file."""

    UNKNOWN = "its close was not seen: written before this started, or by another machine"
    OPEN = "it has written and not closed"
    CLOSED = "it has closed the file, or moved it into place"


class Form(enum.Enum):
    """What a file's format says of its end."""

    WHOLE = "its end is there"
    HALF = "its end is missing"
    NONE = "unknown"


def still_seconds(seen: Seen, writer: Writer, form: Form, stopping: bool = False) -> float:
    """Give the seconds that a file must be still before it is sent."""
    half = form is Form.HALF or seen.size == 0
    if writer is Writer.OPEN:
        return OPEN_PATIENCE if half else PATIENCE
    if writer is Writer.CLOSED:
        return ABANDONED if half and not stopping else GRACE
    seconds = min(SHORTEST_SETTLE + seen.size / 1e9, LONGEST_SETTLE)
    if seen.mtime_ns % 1_000_000_000 == 0:
        seconds = max(seconds, COARSE_SETTLE)
    if half:
        seconds = PATIENCE
    elif form is Form.NONE:
        seconds = max(seconds, BLIND_SETTLE)
    return min(seconds, STOP_SETTLE) if stopping else seconds


def form_of(path: Path) -> Form:
    """Look at a file's first and last bytes; one that cannot be opened tells nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return Form.NONE
    try:
        whole = looks_whole(descriptor, os.fstat(descriptor).st_size)
    except OSError:
        return Form.NONE
    finally:
        os.close(descriptor)
    if whole is None:
        return Form.NONE
    return Form.WHOLE if whole else Form.HALF


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
    if head.startswith(b"GIF8"):
        return os.pread(descriptor, 1, max(size - 1, 0)) == b";"
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


def _boxes_end(descriptor: int, size: int) -> bool | None:
    """Walk over an MP4 file's top-level boxes: they must end where the file does, and one must be `moov`.

    A fragmented file is whole after each of its fragments, so its boxes do not tell.
    """
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
        if kind == b"moof":
            return None
        has_moov |= kind == b"moov"
        at += length
    return False
