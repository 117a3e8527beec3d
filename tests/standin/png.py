"""Encodes a one-colour RGB image as PNG with text chunks; standard library only (RFC 2083)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk: length, type, data, CRC-32 of type and data."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encode(width: int, height: int, color: int, text: Mapping[str, str]) -> bytes:
    """A `width` x `height` pixel image of `color` (0xRRGGBB), one tEXt chunk per entry of `text` (Latin-1)."""
    row = b"\x00" + color.to_bytes(3, "big") * width
    deflate = zlib.compressobj(4)
    pixels = b"".join([deflate.compress(row) for _ in range(height)]) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    texts = [chunk(b"tEXt", key.encode("latin-1") + b"\x00" + value.encode("latin-1")) for key, value in text.items()]
    return b"".join([SIGNATURE, chunk(b"IHDR", header), *texts, chunk(b"IDAT", pixels), chunk(b"IEND", b"")])
