"""The lock of a catalogue: what the sources offered when it was made, so that every later fetch gets exactly that."""

from __future__ import annotations

from pathlib import Path

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


class Lock(Entry):
    """The content of a lock file."""

    files: dict[str, Locked] = Field(default={})
    """File id -> what was offered."""
    snapshots: dict[str, Listing] = Field(default={})
    """Snapshot id -> what it consisted of."""


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
    except (OSError, ValidationError) as error:
        raise CatalogueError(f"{path} is not a lock of a catalogue: remove it, or lock again ({error})") from error


def apply(known: Catalogue, path: Path) -> Catalogue:
    """Give the catalogue with what its lock says of it; `path` is the catalogue's.

    Raises:
        CatalogueError: the lock is not one.
    """
    lock = read(place(path))
    if not lock.files and not lock.snapshots:
        return known
    files = tuple(_locked(file, lock) for file in known.files)
    return known.model_copy(update={"files": files, "listings": lock.snapshots})


def _locked(file: File, lock: Lock) -> File:
    found = lock.files.get(file.id)
    if found is None:
        return file
    update = {name: value for name in ("size", "sha256", "blob") if (value := getattr(found, name)) is not None}
    if isinstance(file.source, HuggingFace) and found.revision:
        update["source"] = file.source.model_copy(update={"revision": found.revision})
    return file.model_copy(update=update)
