"""Whether a file is what it should be: its size, its hash, and for safetensors and GGUF its header."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hearmeman.models.errors import CorruptError

_LONGEST_HEADER = 100 * 1024**2


def check(path: Path, size: int | None, sha256: str | None, blob: str | None = None) -> str:
    """Check a file against what is known of it; the answer is its sha256.

    Raises:
        CorruptError: what differs.
    """
    found = path.stat().st_size
    if size is not None and found != size:
        raise CorruptError(f"{path.name} has {found} bytes instead of {size}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and digest != sha256:
        raise CorruptError(f"{path.name} has the sha256 {digest} instead of {sha256}")
    if blob is not None and git_blob(path) != blob:
        raise CorruptError(f"{path.name} differs from what git names {blob}")
    check_format(path)
    return digest


def wrong_with(path: Path, digest: str, sha256: str, blob: str | None) -> str:
    """Say what is wrong with a file whose sha256 is `digest`; empty when nothing is."""
    if not path.stat().st_size:
        return "it is empty"
    if sha256 and digest != sha256:
        return f"its sha256 is {digest[:12]}... instead of {sha256[:12]}..."
    if blob and git_blob(path) != blob:
        return "it differs from what git names"
    try:
        check_format(path)
    except CorruptError as error:
        return str(error)
    return ""


def git_blob(path: Path) -> str:
    """Hash a file as git does, which is all that the Hub states of small files."""
    hasher = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            hasher.update(data)
    return hasher.hexdigest()


def check_format(path: Path) -> None:
    """Check what a file's own format says of it; formats other than safetensors and GGUF pass.

    Raises:
        CorruptError: the header is not one, or promises more or fewer bytes than there are.
    """
    if path.suffix == ".gguf":
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise CorruptError(f"{path.name} is not a GGUF file")
    if path.suffix == ".safetensors":
        _check_safetensors(path)


def _check_safetensors(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_LONGEST_HEADER, size - 8):
            raise CorruptError(f"{path.name} is not a safetensors file: its header's length is impossible")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise CorruptError(f"{path.name} is not a safetensors file: its header cannot be read") from error
    promised = 8 + length + max(ends, default=0)
    if promised != size:
        raise CorruptError(f"{path.name} has {size} bytes, its header promises {promised}")
