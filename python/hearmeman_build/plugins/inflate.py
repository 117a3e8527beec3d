"""Reads a wheel's members in blocks, inflated by isa-l, which takes less than half of zlib's time.

The library is a wheel of nix/environments/tools.toml, which `plugin.run` puts on the path.
"""

from __future__ import annotations

import importlib
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hearmeman_build.errors import BuildError

_READ = 1 << 18
"""Compressed bytes that are read at once."""
_BLOCK = 1 << 20
"""Bytes that are handed on at once, at most."""
_LOCAL_HEADER = 30
_DEFLATED = 8


@dataclass(frozen=True)
class Packed:
    """Where a member lies in its archive, and how it is packed: the facts of the archive's directory."""

    offset: int
    """Of its local header, from the archive's first byte."""
    compressed: int
    size: int
    method: int
    """0 stored, 8 deflated."""
    crc: int

    @classmethod
    def of(cls, info: zipfile.ZipInfo) -> Packed:
        """From the standard library's reading of the directory."""
        return cls(info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC)


@cache
def _opened(archive: Path) -> int:
    # Read with pread alone, so that processes forked from this one may read at the same time.
    return os.open(archive, os.O_RDONLY | os.O_CLOEXEC)


class Inflated:
    """A member's content, from its first byte to its last; each `read` goes on where the last one ended."""

    def __init__(self, archive: Path, name: str, packed: Packed) -> None:
        """Open nothing yet: a layer's plan holds one of these for every file."""
        self._blocks = _blocks(archive, name, packed)

    def read(self, size: int = -1, /) -> bytes:
        """The next block, however long it is, or all that is left for a `size` below 0; b"" at the end.

        Raises:
            BuildError: the archive is cut short, or the content is not what its checksum says.
        """
        return b"".join(self._blocks) if size < 0 else next(self._blocks, b"")


def _blocks(archive: Path, name: str, packed: Packed) -> Iterator[bytes]:
    igzip: Any = importlib.import_module("isal.igzip_lib")
    crc32: Callable[[bytes, int], int] = importlib.import_module("isal.isal_zlib").crc32
    crc, left = 0, packed.size
    try:
        for block in _content(archive, packed, igzip):
            crc = crc32(block, crc)
            left -= len(block)
            yield block
    except igzip.IsalError as error:
        raise BuildError(f"{archive.name}: {name} does not inflate: {error}") from error
    if left != 0 or crc != packed.crc:
        raise BuildError(f"{archive.name}: {name} is not what the archive's own checksum says: the wheel is bad")


def _content(archive: Path, packed: Packed, igzip: Any) -> Iterator[bytes]:
    file = _opened(archive)
    head = os.pread(file, _LOCAL_HEADER, packed.offset)
    at = packed.offset + _LOCAL_HEADER + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    end = at + packed.compressed
    inflate = igzip.IgzipDecompressor(flag=igzip.DECOMP_DEFLATE) if packed.method == _DEFLATED else None
    while at < end and (data := os.pread(file, min(_READ, end - at), at)):
        at += len(data)
        if inflate is None:
            yield data
            continue
        while not inflate.eof and (block := inflate.decompress(data, _BLOCK)):
            yield block
            data = b""
            if inflate.needs_input:
                break
