"""An address that serves a file, as a source or the cache gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hearmeman.models.catalogue import File
from hearmeman.models.errors import moved


@dataclass(frozen=True)
class Remote:
    """An address that serves a file, and what its source states about it."""

    url: str
    """The address; it may hold a signature, so it is never shown."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """For the address's own origin alone."""
    size: int | None = None
    """Bytes, as stated."""
    sha256: str | None = None
    """Hash, as stated."""
    blob: str | None = None
    """Git's hash, as stated."""
    revision: str = ""
    """Commit, as stated."""
    name: str = ""
    """The file's name, as stated."""
    xet: Mapping[str, Any] | None = field(default=None, repr=False)
    """What the Xet client needs; None when the source does not offer it."""
    stated: bool = False
    """Whether the source's own API has just said that the file is there: storage that denies it is wrong for now."""
    cached: bool = False
    """Whether it is the cache's copy."""


def check_offer(file: File, remote: Remote) -> None:
    """Compare what a source states with what the catalogue names.

    Raises:
        MovedError: they differ.
    """
    if file.size and remote.size and remote.size != file.size:
        raise moved(file.to, file.source, f"offers {remote.size} bytes, the catalogue names {file.size}")
    if file.size is None and file.about and remote.size is not None and remote.size < file.about / 2:
        raise moved(file.to, file.source, f"offers {remote.size} bytes, about {file.about} are expected")
    for ours, theirs in ((file.sha256, remote.sha256), (file.blob, remote.blob)):
        if ours and theirs and ours != theirs:
            raise moved(
                file.to, file.source, f"offers the content {theirs[:12]}..., the catalogue names {ours[:12]}..."
            )
