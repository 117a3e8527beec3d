"""`hearmeman models lock`: asks the sources what they offer now and writes it down."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from hearmeman.errors import HearmemanError, PartlyDoneError
from hearmeman.models.catalogue import File, Snapshot
from hearmeman.models.catalogue import read as read_catalogue
from hearmeman.models.context import Context
from hearmeman.models.errors import FetchError, TransientError
from hearmeman.models.http import Http
from hearmeman.models.lock import Lock, Locked, place, read
from hearmeman.models.sources import Sources
from hearmeman.state_file import write_json


class LockError(PartlyDoneError):
    """Some sources did not answer, or offer something else than before."""


class UnwritableError(HearmemanError):
    """The lock file cannot be written."""


def run(args: argparse.Namespace, context: Context) -> int:
    """Ask every source and write the lock.

    Raises:
        LockError: some did not answer, or with --check: offer something else than before.
    """
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
        except (FetchError, TransientError) as error:
            self.rows[file.id] = {"status": "failed", "found": "", "problem": str(error)}
        return self.rows[file.id]["status"]

    def _snapshot(self, file: File, source: Snapshot) -> tuple[str, str]:
        found = self.sources.list(source)
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
            answer = self.http.open(remote, (0, 1), file.to)
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
