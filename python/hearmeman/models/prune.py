"""`hearmeman models prune`: names, and with --yes removes, what was fetched and no enabled model needs."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hearmeman.errors import HearmemanError
from hearmeman.models.lease import Lease
from hearmeman.models.plan import Plan, Record
from hearmeman.models.store import Store, used_bytes

if TYPE_CHECKING:
    from hearmeman.models.command import Context


class PruneError(HearmemanError):
    """Something could not be removed."""


@dataclass(frozen=True)
class Surplus:
    """Something that could go."""

    to: str
    """Where it is, relative to the models folder."""
    bytes: int
    """What it occupies."""
    kept: str
    """Why it stays all the same; empty if it may go."""


def surplus(store: Store, made: Plan) -> list[Surplus]:
    """Find what we fetched and no model of the plan needs, and staging folders that nothing will go on with."""
    needed = {step.file.to for step in made.steps}
    folders = {f"{step.file.to}/" for step in made.steps if step.action == "list"}
    found = []
    for to, record in sorted(store.read_records().items()):
        wanted = to in needed or any(to.startswith(folder) for folder in folders)
        path = store.root / to
        # What was there before us has no source; it is a person's own.
        if not wanted and record.source and path.is_file():
            found.append(
                Surplus(to, path.stat().st_size, "" if _ours(path, record) else "changed since it was fetched")
            )
    staged = {store.staged(step.file).parent.name for step in made.steps}
    if store.staging.is_dir():
        for folder in sorted(store.staging.iterdir()):
            if folder.name not in staged:
                found.append(Surplus(str(folder.relative_to(store.root)), used_bytes(folder), ""))
    return found


def _ours(path: Path, record: Record) -> bool:
    seen = path.stat()
    return (seen.st_size, seen.st_mtime_ns) == (record.size, record.mtime_ns)


def command(args: argparse.Namespace, context: Context) -> int:
    """Show what could go; with --yes remove it.

    Raises:
        PruneError: something could not be removed.
    """
    store = context.store
    found = surplus(store, context.plan())
    going = [one for one in found if not one.kept]
    if args.yes and going:
        with Lease(store.own / "lease.json", context.settings.runpod_pod_id, lambda words: None):
            for one in going:
                _remove(store, one)
    if args.json:
        print(json.dumps({"removed": args.yes, "surplus": [asdict(one) for one in found]}, indent=2))
        return 0
    print("enabled: " + (", ".join(model.id for model in context.models) or "nothing"))
    for one in found:
        print(f"{one.bytes / 1e9:9.3f} GB  {one.to}" + (f"  (stays: {one.kept})" if one.kept else ""))
    total = sum(one.bytes for one in going) / 1e9
    print(f"{total:.3f} GB " + ("removed" if args.yes else "would go: say --yes to remove it"))
    if store.replaced.is_dir() and any(store.replaced.iterdir()):
        size = used_bytes(store.replaced) / 1e9
        print(
            f"{size:.3f} GB of files that were replaced wait in {store.replaced}; look at them and remove them by hand"
        )
    return 0


def _remove(store: Store, one: Surplus) -> None:
    try:
        path = store.root / one.to
        if path.is_dir():
            shutil.rmtree(path)
        else:
            store.forget(one.to)
    except OSError as error:
        raise PruneError(f"{one.to} cannot be removed: {error.strerror}") from error
