"""GGUF: its header, its list of tensors, and whether the file is long enough for them (ggml's docs/gguf.md)."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

from hearmeman.models.errors import CorruptError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_LONGEST_TEXT = 1 << 26
_MOST_ENTRIES = 1 << 24
_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 40),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    30: (1, 2),
}
"""ggml's number of a type -> elements and bytes of one block; of other types only the first byte must be there."""


def check(path: Path) -> None:
    """Read what describes the tensors and compare where they end with the file's size.

    Raises:
        CorruptError: it is not GGUF, has no tensors, or is cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise CorruptError(f"{path.name} is not a GGUF file")
        try:
            needed = _needed(file)
        except (struct.error, ValueError, OverflowError) as error:
            why = "it ends within its header" if isinstance(error, struct.error) else str(error)
            raise CorruptError(f"{path.name} is not a GGUF file that can be read: {why}") from error
    if size < needed:
        raise CorruptError(f"{path.name} has {size} bytes, its header promises {needed}")


def _needed(file: BinaryIO) -> int:
    """Give the bytes that the whole file must have at least."""
    version, tensors, entries = _read(file, "I"), 0, 0
    if not 1 <= version <= 3:
        raise ValueError(f"its version is {version}")
    tensors, entries = (_read(file, "I" if version == 1 else "Q") for _ in range(2))
    if not tensors:
        raise ValueError("it has no tensors")
    if tensors > _MOST_ENTRIES or entries > _MOST_ENTRIES:
        raise ValueError("its header counts more than there can be")
    count = "I" if version == 1 else "Q"
    alignment = 32
    for _ in range(entries):
        key, value = _text(file, count), _value(file, _read(file, "I"), count)
        if key == b"general.alignment" and isinstance(value, int) and value > 0:
            alignment = value
    ends = [_tensor(file, count) for _ in range(tensors)]
    begin = -(-file.tell() // alignment) * alignment
    return begin + max(ends)


def _tensor(file: BinaryIO, count: str) -> int:
    """Give where one tensor ends, from where the first begins."""
    _text(file, count)
    dimensions = _read(file, "I")
    if dimensions > 8:
        raise ValueError(f"a tensor has {dimensions} dimensions")
    elements = math.prod(_read(file, count) for _ in range(dimensions))
    kind, offset = _read(file, "I"), _read(file, "Q")
    block, width = _BLOCKS.get(kind, (0, 0))
    return offset + (-(-elements // block) * width if block else 1)


def _value(file: BinaryIO, kind: int, count: str) -> object:
    """Read one value; of an array nothing is kept."""
    if kind in _SCALARS:
        return _read(file, _SCALARS[kind])
    if kind == _TEXT:
        return _text(file, count)
    if kind != _ARRAY:
        raise ValueError(f"it holds a value of the unknown kind {kind}")
    inner, length = _read(file, "I"), _read(file, count)
    if inner in _SCALARS:
        file.seek(length * struct.calcsize(f"<{_SCALARS[inner]}"), 1)
        return None
    if length > _MOST_ENTRIES:
        raise ValueError("its header counts more than there can be")
    for _ in range(length):
        _value(file, inner, count)
    return None


def _text(file: BinaryIO, count: str) -> bytes:
    length = _read(file, count)
    if length > _LONGEST_TEXT:
        raise ValueError("a text in its header is longer than there can be")
    found = file.read(length)
    if len(found) != length:
        raise struct.error
    return found


def _read(file: BinaryIO, form: str) -> int:
    return int(struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))[0])
