"""`hearmeman models prune`: names, and with --yes removes, what was fetched and no enabled model needs."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from hearmeman.errors import HearmemanError, UsageError
from hearmeman.models.context import Context
from hearmeman.models.lease import Lease
from hearmeman.models.plan import Plan, Record
from hearmeman.models.store import Store, used_bytes


class PruneError(HearmemanError):
    """Something could not be removed."""


class NothingEnabledError(UsageError):
    """No model is asked for, so that everything would go."""


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
    for staging in store.staging_folders():
        for folder in sorted(staging.iterdir()) if staging.is_dir() else ():
            if folder.name not in staged:
                shown = folder.relative_to(store.root) if folder.is_relative_to(store.root) else folder
                found.append(Surplus(str(shown), used_bytes(folder), ""))
    return found


def _ours(path: Path, record: Record) -> bool:
    seen = path.stat()
    return (seen.st_size, seen.st_mtime_ns) == (record.size, record.mtime_ns)


def run(args: argparse.Namespace, context: Context) -> int:
    """Show what could go; with --yes remove it.

    Raises:
        NothingEnabledError: no model is enabled, and it was not said that everything may go.
        PruneError: something could not be removed.
    """
    store = context.store
    found = surplus(store, context.plan())
    going = [one for one in found if not one.kept]
    if args.yes and going and not context.models and not args.everything:
        raise NothingEnabledError(
            f"no model is enabled, so all {len(going)} fetched files would go: nothing was removed. "
            "Set the variables of the pod, name what is to stay in MODELS or here, or give --everything"
        )
    if args.yes and going:
        with Lease(store.own / "lease.json", context.settings.runpod_pod_id, lambda words: None):
            for one in going:
                _remove(store, one)
    if args.json:
        print(json.dumps({"removed": args.yes, "surplus": [asdict(one) for one in found]}, indent=2))
    else:
        print("\n".join(_lines(found, context, args.yes)))
    return 0


def _lines(found: list[Surplus], context: Context, removed: bool) -> Iterator[str]:
    yield "enabled: " + (", ".join(model.id for model in context.models) or "nothing")
    for one in found:
        yield f"{one.bytes / 1e9:9.3f} GB  {one.to}" + (f"  (stays: {one.kept})" if one.kept else "")
    total = sum(one.bytes for one in found if not one.kept) / 1e9
    if not any(not one.kept for one in found):
        yield "nothing to remove"
    elif removed:
        yield f"{total:.3f} GB removed"
    else:
        extra = "" if context.models else " --everything"
        yield f"{total:.3f} GB would go: `hearmeman models prune --yes{extra}` removes it"
    replaced = context.store.replaced
    if replaced.is_dir() and any(replaced.iterdir()):
        yield f"{used_bytes(replaced) / 1e9:.3f} GB of replaced files are kept in {replaced}; remove them by hand"


def _remove(store: Store, one: Surplus) -> None:
    try:
        path = store.root / one.to
        if path.is_dir():
            shutil.rmtree(path)
        else:
            store.forget(one.to)
    except OSError as error:
        raise PruneError(f"{one.to} cannot be removed: {error.strerror}") from error
