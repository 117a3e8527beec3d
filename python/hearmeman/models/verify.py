"""Whether a file is what it should be: its size, its hash, and what its own format says of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hearmeman.models.errors import CorruptError
from hearmeman.models.formats import check_format


def check(path: Path, size: int | None, sha256: str | None, blob: str | None = None, about: int | None = None) -> str:
    """Check a file against what is known of it; the answer is its sha256.

    `about` is a rounded size: where nothing better is known, half or double of it is too far off.

    Raises:
        CorruptError: what differs.
    """
    found = path.stat().st_size
    if size is not None and found != size:
        raise CorruptError(f"{path.name} has {found} bytes instead of {size}")
    if not (size or sha256 or blob) and about and not about / 2 < found < about * 2:
        raise CorruptError(f"{path.name} has {found} bytes instead of about {about}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and digest != sha256:
        raise CorruptError(f"{path.name} has the sha256 {digest} instead of {sha256}")
    if blob is not None and git_blob(path) != blob:
        raise CorruptError(f"{path.name} differs from what git names {blob}")
    check_format(path)
    return digest


def wrong_with(path: Path, digest: str, sha256: str, blob: str | None, name: str = "") -> str:
    """Say what is wrong with a file whose sha256 is `digest` and which will be called `name`; empty when nothing is."""
    if not path.stat().st_size:
        return "it is empty"
    if sha256 and digest != sha256:
        return f"its sha256 is {digest[:12]}... instead of {sha256[:12]}..."
    if blob and git_blob(path) != blob:
        return "it differs from what git names"
    try:
        check_format(path, name)
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
