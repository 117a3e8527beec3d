"""`hearmeman models lock`: what the sources offer now, written down, so that every later fetch gets exactly that."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from hearmeman.errors import HearmemanError, PartlyDoneError
from hearmeman.models.catalogue import Catalogue, CatalogueError, Entry, File, HuggingFace, Listing, Snapshot
from hearmeman.models.errors import ExpiredError, FetchError, TransientError
from hearmeman.models.http import Http
from hearmeman.models.sources import Sources
from hearmeman.state_file import write_json

if TYPE_CHECKING:
    from hearmeman.models.command import Context


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


class LockError(PartlyDoneError):
    """Some sources did not answer, or offer something else than before."""


class UnwritableError(HearmemanError):
    """The lock file cannot be written."""


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


def command(args: argparse.Namespace, context: Context) -> int:
    """Ask every source and write the lock.

    Raises:
        LockError: some did not answer, or with --check: offer something else than before.
    """
    from hearmeman.models.catalogue import read as read_catalogue

    path = Path(context.settings.model_catalogue)
    plain = read_catalogue(path)
    wanted = {name for model in context.models for name in model.files}
    files = [file for file in plain.files if args.all or file.id in wanted]
    asker = _Asker(context, read(place(path)))
    for file in files:
        status = asker.ask(file)
        if not args.json:
            print(f"{status:8} {file.to}  {asker.told(file)}".rstrip(), flush=True)
    if args.json:
        print(json.dumps({"files": asker.rows, "lock": asker.lock().model_dump()}, indent=2))
    sys.stdout.flush()
    if not args.check:
        out = args.out or place(path)
        try:
            write_json(out, asker.lock().model_dump())
        except OSError as error:
            raise UnwritableError(
                f"{out} cannot be written: {error.strerror}: give another place with --out"
            ) from error
    bad = {name: row for name, row in asker.rows.items() if row["status"] == "failed"}
    moved = {name: row for name, row in asker.rows.items() if row["status"] == "moved"} if args.check else {}
    if bad or moved:
        told = [f"  {row['problem']}" for row in bad.values()] + [f"  {name} moved upstream" for name in moved]
        raise LockError(f"{len(bad) + len(moved)} of {len(files)} could not be locked as before:\n" + "\n".join(told))
    return 0


class _Asker:
    """Asks sources and compares with what was known."""

    def __init__(self, context: Context, before: Lock) -> None:
        self.settings = context.settings
        self.http = Http(4, 30)
        self.sources = Sources(context.settings, self.http)
        self.before = before
        self.files, self.snapshots = dict(before.files), dict(before.snapshots)
        self.rows: dict[str, dict[str, str]] = {}

    def lock(self) -> Lock:
        """Give what is to be written."""
        return Lock(files=dict(sorted(self.files.items())), snapshots=dict(sorted(self.snapshots.items())))

    def told(self, file: File) -> str:
        """Say in a few words what was found."""
        row = self.rows[file.id]
        return row["problem"] or row["found"]

    def ask(self, file: File) -> str:
        """Ask for one file; the answer is new, same, moved, unstated or failed."""
        try:
            status, found = self._snapshot(file, file.source) if isinstance(file.source, Snapshot) else self._file(file)
            self.rows[file.id] = {"status": status, "found": found, "problem": ""}
        except (FetchError, TransientError, ExpiredError) as error:
            self.rows[file.id] = {"status": "failed", "found": "", "problem": str(error)}
        return self.rows[file.id]["status"]

    def _snapshot(self, file: File, source: Snapshot) -> tuple[str, str]:
        from hearmeman.models.sources import hub

        found = hub.listing(source, self.settings)
        old = self.before.snapshots.get(file.id)
        self.snapshots[file.id] = found
        size = sum(part.size for part in found.parts)
        status = "new" if old is None else "same" if old.parts == found.parts else "moved"
        return status, f"{len(found.parts)} files, {size} bytes at {found.revision[:12]}"

    def _file(self, file: File) -> tuple[str, str]:
        remote = self.sources.resolve(file)
        size = remote.size
        if size is None:
            # No one states it, so the first byte is asked for: the answer names the whole.
            answer = self.http.open(remote.url, remote.headers, (0, 1), file.to)
            answer.response.close()
            size = answer.total
        found = Locked(revision=remote.revision, size=size, sha256=remote.sha256, blob=remote.blob)
        old = self.before.files.get(file.id) or Locked(size=file.size, sha256=file.sha256, blob=file.blob)
        pairs = ((old.size, found.size), (old.sha256, found.sha256), (old.blob, found.blob))
        self.files[file.id] = found
        if any(a and b and a != b for a, b in pairs):
            status = "moved"
        elif not (found.sha256 or found.blob):
            status = "unstated"
        else:
            status = "same" if (old.sha256 or old.blob) and old.size else "new"
        return (
            status,
            f"{found.size} bytes, {(found.sha256 or found.blob or 'no hash')[:12]} at {found.revision[:12] or '-'}",
        )
