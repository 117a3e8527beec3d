"""What a format says of a file's end."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from hearmeman.sync.finished import Form, form_of, looks_whole

WEBM = b"\x1aE\xdf\xa3\x84" + bytes(4) + b"\x18S\x80g"


def box(kind: bytes, size: int) -> bytes:
    return struct.pack(">I4s", size + 8, kind) + bytes(size)


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"x" * 50 + b"\0\0\0\0IEND\xaeB`\x82", True),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 50, False),
        (b"RIFF" + struct.pack("<I", 12) + b"WEBP" + bytes(8), True),
        (b"RIFF" + struct.pack("<I", 13) + b"WAVE" + bytes(8), False),
        (b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + bytes(8), False),
        (b"RIFF" + struct.pack("<I", 11) + b"WAVE" + bytes(8), True),  # Padded to an even length.
        (b"RIFF" + struct.pack("<I", 8) + b"WAVE" + bytes(8), False),
        (WEBM + b"\x01\0\0\0\0\0\0\x10" + bytes(16), True),
        (WEBM + b"\x01\0\0\0\0\0\0\x11" + bytes(16), False),
        (WEBM + b"\x01\xff\xff\xff\xff\xff\xff\xff" + bytes(16), False),
        (WEBM[:7], False),
        (b"fLaC" + bytes(22) + b"\x01" * 16 + bytes(30), True),
        (b"fLaC" + bytes(22) + bytes(16) + bytes(30), False),
        (b"\xff\xd8\xff\xe0" + bytes(9) + b"\xff\xd9", True),
        (b"\xff\xd8\xff\xe0" + bytes(9), None),
        (box(b"ftyp", 8) + box(b"mdat", 100) + box(b"moov", 20), True),
        (box(b"ftyp", 8) + box(b"moov", 20) + struct.pack(">I4sQ", 1, b"mdat", 26) + bytes(10), True),
        (box(b"ftyp", 8) + box(b"moov", 20) + struct.pack(">I4s", 0, b"mdat") + bytes(99), True),
        (box(b"ftyp", 8) + box(b"mdat", 100), False),
        (box(b"ftyp", 8) + box(b"moov", 20) + box(b"moof", 20) + box(b"mdat", 100), None),
        (box(b"ftyp", 8) + box(b"moov", 20) + box(b"mdat", 100)[:-1], False),
        (b"GIF89a" + bytes(20) + b";", True),
        (b"GIF89a" + bytes(20), False),
        (b"ID3 and so on", None),
        (b"", None),
    ],
)
def test_formats_that_say_where_they_end(tmp_path: Path, content: bytes, whole: bool | None) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert looks_whole(file.fileno(), len(content)) is whole


def test_what_cannot_be_opened_tells_nothing(tmp_path: Path) -> None:
    png = b"\x89PNG\r\n\x1a\n" + b"x" * 50 + b"\0\0\0\0IEND\xaeB`\x82"
    (tmp_path / "a.png").write_bytes(png)
    (tmp_path / "half.png").write_bytes(png[:-1])
    assert form_of(tmp_path / "a.png") is Form.WHOLE
    assert form_of(tmp_path / "half.png") is Form.HALF
    (tmp_path / "link").symlink_to(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "gone"):
        assert form_of(tmp_path / name) is Form.NONE
