"""`hearmeman models lock`: asks the sources what they offer now and writes it down."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hearmeman.errors import HearmemanError, PartlyDoneError
from hearmeman.models.asked import is_address
from hearmeman.models.catalogue import File, Snapshot
from hearmeman.models.context import Context
from hearmeman.models.errors import FetchError, TransientError
from hearmeman.models.http import Http
from hearmeman.models.lock import Lock, Locked, place, read
from hearmeman.models.sources import Sources
from hearmeman.models.statements import Statements
from hearmeman.redact import redacted
from hearmeman.settings import Settings
from hearmeman.state_file import write_named

IMAGE_CATALOGUE = Settings.model_fields["model_catalogue"].default
"""The catalogue that the image brings: what is written beside it would be lost with the pod."""


class LockError(PartlyDoneError):
    """Some sources did not answer, or offer something else than before."""


class UnwritableError(HearmemanError):
    """The lock file cannot be written."""


def run(args: argparse.Namespace, context: Context) -> int:
    """Ask every source and write the lock: beside a catalogue of one's own, for the image's catalogue onto the volume.

    Raises:
        LockError: some did not answer, or with --check: offer something else than before.
        UnwritableError: the lock cannot be written.
    """
    catalogue = Path(context.settings.model_catalogue)
    # Who names models wants these written, and no other entry moved.
    models = [m for m in context.models if not args.models or m.id in args.models or is_address(m.id)]
    wanted = {name for model in models for name in model.files}
    files = [file for file in context.plain.files if args.all or file.id in wanted]
    before = context.locked if args.out is None else read(args.out)
    asker = _Asker(context, before)
    for file in files:
        status = asker.ask(file)
        if not args.json:
            print(f"{status:8} {file.to}  {asker.told(file)}".rstrip(), flush=True)
    if args.json:
        print(json.dumps({"files": asker.rows, "lock": asker.lock().written()}, indent=2))
    sys.stdout.flush()
    if not args.check:
        out = args.out or (None if str(catalogue) == IMAGE_CATALOGUE else place(catalogue))
        where = _write(asker, files, out, context)
        if not args.json:
            print(f"written to {where}")
    bad = {name: row for name, row in asker.rows.items() if row["status"] == "failed"}
    moved = {name: row for name, row in asker.rows.items() if row["status"] == "moved"} if args.check else {}
    if bad or moved:
        told = [f"  {row['problem']}" for row in bad.values()] + [f"  {name} moved upstream" for name in moved]
        raise LockError(f"{len(bad) + len(moved)} of {len(files)} could not be locked as before:\n" + "\n".join(told))
    return 0


def _write(asker: _Asker, files: list[File], out: Path | None, context: Context) -> Path:
    """Write what was found to the lock file `out`, or without one onto the volume; addresses always go there."""
    known = {file.id for file in files if not is_address(file.id)}
    here = [file for file in files if out is None or file.id not in known]
    try:
        if out is not None:
            lock = redacted(asker.lock(leaving=[file.id for file in here]).written())
            write_named(out, json.dumps(lock, indent=1))
        for file in here:
            if found := asker.files.get(file.id):
                context.store.note_stated(file, found.model_copy(update={"source": str(file.source), "chosen": True}))
            if listing := asker.snapshots.get(file.id):
                context.store.note_listing(file, listing.model_copy(update={"chosen": True}))
    except OSError as error:
        where = error.filename or out or context.store.root
        raise UnwritableError(f"{where} cannot be written: {error.strerror}: give another place with --out") from error
    return out or context.store.stated


class _Asker:
    """Asks sources and compares with what was known."""

    def __init__(self, context: Context, before: Lock) -> None:
        self.settings = context.settings
        self.statements = Statements(context.store, Sources(context.settings, Http(4, 30)))
        self.before = before
        self.files, self.snapshots = dict(before.files), dict(before.snapshots)
        self.rows: dict[str, dict[str, str]] = {}

    def lock(self, leaving: Sequence[str] = ()) -> Lock:
        """Give what is to be written, without the files of these ids."""
        files = {name: found for name, found in sorted(self.files.items()) if name not in leaving}
        return Lock(files=files, snapshots=dict(sorted(self.snapshots.items())))

    def told(self, file: File) -> str:
        """Say in a few words what was found."""
        row = self.rows[file.id]
        return row["problem"].removeprefix(f"{file.to}: ") or row["found"]

    def ask(self, file: File) -> str:
        """Ask for one file; the answer is new, same, moved, unstated or failed."""
        try:
            status, found = self._snapshot(file, file.source) if isinstance(file.source, Snapshot) else self._file(file)
            self.rows[file.id] = {"status": status, "found": found, "problem": ""}
        except (FetchError, TransientError) as error:
            why = str(error) if str(error).startswith(file.to) else f"{file.to}: {error}"
            self.rows[file.id] = {"status": "failed", "found": "", "problem": why}
        return self.rows[file.id]["status"]

    def _snapshot(self, file: File, source: Snapshot) -> tuple[str, str]:
        found = self.statements.sources.list(source)
        old = self.before.snapshots.get(file.id)
        self.snapshots[file.id] = found
        size = sum(part.size for part in found.parts)
        status = "new" if old is None else "same" if old.parts == found.parts else "moved"
        return status, f"{len(found.parts)} files, {size} bytes at {found.revision[:12]}"

    def _file(self, file: File) -> tuple[str, str]:
        found = self.statements.ask(file)
        old = self.before.files.get(file.id) or Locked(size=file.size, sha256=file.sha256, blob=file.blob)
        pairs = ((old.size, found.size), (old.sha256, found.sha256), (old.blob, found.blob))
        self.files[file.id] = found
        if any(a is not None and b is not None and a != b for a, b in pairs):
            status = "moved"
        elif not (found.sha256 or found.blob):
            status = "unstated"
        else:
            status = "same" if (old.sha256 or old.blob) and old.size is not None else "new"
        size = "size unknown" if found.size is None else f"{found.size} bytes"
        digest = f"{(found.sha256 or found.blob or '')[:12] or 'no hash'} at {found.revision[:12] or '-'}"
        return status, f"{size}, {digest}" + (f", named {found.name}" if found.name else "")
