"""Encodes silence as 16-bit FLAC with constant subframes (RFC 9639), by the standard library alone."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping

BLOCK = 4096


def _table(width: int, polynomial: int) -> list[int]:
    top, mask = 1 << (width - 1), (1 << width) - 1
    table = []
    for byte in range(256):
        value = byte << (width - 8)
        for _ in range(8):
            value = ((value << 1) ^ polynomial if value & top else value << 1) & mask
        table.append(value)
    return table


_CRC8 = _table(8, 0x07)
_CRC16 = _table(16, 0x8005)


def crc8(data: bytes) -> int:
    """CRC-8 of a frame header, polynomial x^8+x^2+x+1, initial value 0."""
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value


def crc16(data: bytes) -> int:
    """CRC-16 of a whole frame, polynomial x^16+x^15+x^2+1, initial value 0."""
    value = 0
    for byte in data:
        value = ((value << 8) & 0xFFFF) ^ _CRC16[(value >> 8) ^ byte]
    return value


def coded_number(number: int) -> bytes:
    """A frame's number in the extended UTF-8 of FLAC."""
    if number < 0x80:
        return bytes([number])
    tail: list[int] = []
    room = 0x20
    while True:
        tail.insert(0, 0x80 | (number & 0x3F))
        number >>= 6
        if number < room:
            lead = (0xFF & ~(2 * room - 1)) | number
            return bytes([lead, *tail])
        room >>= 1


def frame(number: int, samples: int, channels: int) -> bytes:
    """One frame of silence: `samples` per channel, sample rate taken from STREAMINFO."""
    # 0xFFF8: sync code, fixed block size; 0x70: size of the block as 16 bits at the header's end;
    # low nibble 0: rate from STREAMINFO; then channels - 1, and 0b100 for 16 bits a sample.
    header = b"\xff\xf8" + bytes([0x70, ((channels - 1) << 4) | (0b100 << 1)])
    header += coded_number(number) + struct.pack(">H", samples - 1)
    header += bytes([crc8(header)])
    body = header + b"\x00\x00\x00" * channels
    return body + struct.pack(">H", crc16(body))


def _block(kind: int, data: bytes, last: bool) -> bytes:
    return bytes([kind | (0x80 if last else 0)]) + len(data).to_bytes(3, "big") + data


def _comments(text: Mapping[str, str]) -> bytes:
    entries = [f"{key}={value}".encode() for key, value in text.items()]
    vendor = b"stand-in"
    parts = [struct.pack("<I", len(vendor)), vendor, struct.pack("<I", len(entries))]
    for entry in entries:
        parts += [struct.pack("<I", len(entry)), entry]
    return b"".join(parts)


def encode(samples: int, rate: int, channels: int, text: Mapping[str, str]) -> bytes:
    """Silence of `samples` per channel at `rate` Hz, with `text` as Vorbis comments."""
    digest = hashlib.md5(usedforsecurity=False)
    left = samples * channels * 2
    while left:
        step = min(left, 1 << 20)
        digest.update(bytes(step))
        left -= step
    packed = (rate << 44) | ((channels - 1) << 41) | (15 << 36) | samples
    info = struct.pack(">HH", BLOCK, BLOCK) + bytes(6) + packed.to_bytes(8, "big") + digest.digest()
    frames = []
    for number, start in enumerate(range(0, samples, BLOCK)):
        frames.append(frame(number, min(BLOCK, samples - start), channels))
    return b"".join([b"fLaC", _block(0, info, False), _block(4, _comments(text), True), *frames])
