"""safetensors: refused exactly where the library refuses it (github.com/huggingface/safetensors, `Metadata::validate`)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from hearmeman.models.errors import CorruptError

_LONGEST_HEADER = 100_000_000
_MOST = 2**64
_BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"], 8),
    **dict.fromkeys(["I16", "U16", "F16", "BF16"], 16),
    **dict.fromkeys(["I32", "U32", "F32"], 32),
    **dict.fromkeys(["C64", "F64", "I64", "U64"], 64),
}
"""Bits of one element, by the types that safetensors 0.8 knows."""


def check(path: Path) -> None:
    """Read the header and compare what it promises with what is there.

    Raises:
        CorruptError: the library would refuse it; the message says at what.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_LONGEST_HEADER, size - 8):
            raise CorruptError(f"{path.name} is not a safetensors file: its header's length is impossible")
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
        end = _end(header)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path.name} is not a safetensors file: {_why(error)}") from error
    if 8 + length + end != size:
        raise CorruptError(f"{path.name} has {size} bytes, its header promises {8 + length + end}")


def _why(error: Exception) -> str:
    broken = isinstance(error, (json.JSONDecodeError, UnicodeDecodeError, RecursionError))
    return "its header is not JSON" if broken else str(error)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"its header holds {name}")


def _end(header: Any) -> int:
    """Give where the last tensor ends; tensors must follow each other without holes."""
    if not isinstance(header, dict):
        raise ValueError("its header is not a table")
    about = {} if header.get("__metadata__") is None else header["__metadata__"]
    if not isinstance(about, dict) or not all(isinstance(value, str) for value in about.values()):
        raise ValueError("its metadata holds something other than text")
    spans = [_span(name, entry) for name, entry in header.items() if name != "__metadata__"]
    position = 0
    for start, end, name in sorted(spans):
        if start != position:
            raise ValueError(f"the tensor {name} does not begin where the one before it ends")
        position = end
    return position


def _span(name: str, entry: Any) -> tuple[int, int, str]:
    if not isinstance(entry, dict):
        raise ValueError(f"the tensor {name} is not described")
    bits = _BITS.get(entry.get("dtype", ""))
    if bits is None:
        raise ValueError(f"the tensor {name} has the unknown type {entry.get('dtype')}")
    shape, offsets = _counts(name, entry.get("shape")), _counts(name, entry.get("data_offsets"))
    if len(offsets) != 2 or offsets[1] < offsets[0]:
        raise ValueError(f"the tensor {name} has impossible offsets")
    total = math.prod(shape) * bits
    if total % 8 or total // 8 != offsets[1] - offsets[0]:
        raise ValueError(
            f"the tensor {name} has {offsets[1] - offsets[0]} bytes, its shape and type need {total / 8:g}"
        )
    return offsets[0], offsets[1], name


def _counts(name: str, found: Any) -> list[int]:
    if not isinstance(found, list) or not all(type(one) is int and 0 <= one < _MOST for one in found):
        raise ValueError(f"the tensor {name} has an impossible shape or offset")
    return found
