"""What sources offered, written down so that every later fetch gets exactly that: beside the catalogue, or on the volume."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pydantic import Field, ValidationError

from hearmeman.models.catalogue import Catalogue, CatalogueError, Entry, File, HuggingFace, Listing


class Locked(Entry):
    """One file as its source offered it."""

    revision: str = ""
    """Commit or version."""
    size: int | None = None
    """Bytes."""
    sha256: str | None = None
    """Hash of its content."""
    blob: str | None = None
    """Git's hash of it."""
    name: str = ""
    """The name that its source gives it, where it was asked for without one."""
    source: str = ""
    """On a volume: what was asked, so that it is not taken for the answer to another question."""
    chosen: bool = False
    """On a volume: whether a person asked for exactly this, which then counts more than what the image says."""


class Lock(Entry):
    """The content of a lock file."""

    files: dict[str, Locked] = Field(default={})
    """File id -> what was offered."""
    snapshots: dict[str, Listing] = Field(default={})
    """Snapshot id -> what it consisted of."""

    def written(self) -> dict[str, object]:
        """Give the content of a file that lies beside a catalogue."""
        volumes = {"name", "source", "chosen"}
        return self.model_dump(exclude={"files": {"__all__": volumes}, "snapshots": {"__all__": {"chosen"}}})


def place(catalogue: Path) -> Path:
    """Give the lock file that belongs to a catalogue."""
    return catalogue.with_suffix(".lock.json")


def read(path: Path) -> Lock:
    """Read a lock file; one that is not there is empty.

    Raises:
        CatalogueError: it is not one.
    """
    try:
        return Lock.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Lock()
    except OSError as error:
        raise CatalogueError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"]
        raise CatalogueError(
            f"{path} is not the lock of a catalogue ({why}): remove it; `hearmeman models lock` makes a new one"
        ) from error


def apply(known: Catalogue, lock: Lock, stated: Mapping[str, Locked] | None = None) -> Catalogue:
    """Give the catalogue with what its lock says of it, and with what sources stated on this volume.

    What the catalogue and its lock say counts; a volume's statements fill what they leave open, unless a person chose
    them there.
    """
    taken = {file.to.casefold() for file in known.files if not file.unnamed}
    files = []
    for file in known.files:
        found = _merged(file, lock.files.get(file.id), (stated or {}).get(file.id))
        if file.unnamed and found.to.casefold() in taken:
            found = found.model_copy(update={"to": _beside(found.to, PurePosixPath(file.to).name)})
        files.append(found)
    return known.model_copy(update={"files": tuple(files), "listings": lock.snapshots})


def _beside(to: str, mark: str) -> str:
    """Give another name to a file whose own is taken: x.safetensors becomes x.civitai-12345.safetensors."""
    place = PurePosixPath(to)
    return str(place.with_name(f"{place.stem}.{mark}{place.suffix}"))


def with_statement(file: File, stated: Locked) -> File:
    """Give a file with what its source states, where neither the catalogue nor its lock says it."""
    return _merged(file, None, stated)


def is_pinned(file: File) -> bool:
    """Tell whether a later fetch of this file gets the same bytes, or fails."""
    if isinstance(file.source, HuggingFace) and not re.fullmatch("[0-9a-f]{40}", file.source.revision):
        return False
    return bool(file.size is not None and (file.sha256 or file.blob))


def _merged(file: File, locked: Locked | None, stated: Locked | None) -> File:
    if stated is not None and stated.chosen and stated.source == str(file.source):
        return _with(file, stated).model_copy(update={"stated": True})
    found = file if locked is None else _with(file, locked)
    if stated is None or stated.chosen or stated.source != str(found.source):
        return found
    known = {"size": found.size, "sha256": found.sha256, "blob": found.blob}
    known = {name: value for name, value in known.items() if value is not None}
    return _with(found, stated.model_copy(update=known)).model_copy(update={"stated": True})


def _with(file: File, found: Locked) -> File:
    update = {name: value for name in ("size", "sha256", "blob") if (value := getattr(found, name)) is not None}
    if isinstance(file.source, HuggingFace) and found.revision:
        update["source"] = file.source.model_copy(update={"revision": found.revision})
    if file.unnamed and found.name:
        update |= {"to": str(PurePosixPath(file.to).with_name(found.name)), "unnamed": False}
    return file.model_copy(update=update)
