"""`hearmeman workspace`: saves ComfyUI's user folder, inputs and what was added to the bucket, and brings them back."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hearmeman.errors import HearmemanError, PartlyDoneError
from hearmeman.log import log
from hearmeman.terminal import Bar, age, bars, count, size, table

if TYPE_CHECKING:
    from hearmeman.settings import Settings
    from hearmeman.workspace.contents import Save
    from hearmeman.workspace.space import Space

SHOWN = 20
PRUNE_AGE = 86400.0
"""A file younger than this many seconds may belong to a save that is being made."""
PAUSE = 2.0
"""Seconds between two tries at the start of a pod."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman workspace`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def command(name: str, help: str, dry: str = "") -> argparse.ArgumentParser:
        found = actions.add_parser(name, help=help, allow_abbrev=False)
        if dry:
            found.add_argument("--dry-run", action="store_true", help=dry)
        return found

    saving = command("save", "save the workspace now; exit 3 if a file could not be read", "show what would be saved")
    saving.add_argument("--json", action="store_true", help="print JSON")
    restoring = command(
        "restore", "fetch what is missing here; what is here is never touched", "show what would be fetched"
    )
    restoring.add_argument("--json", action="store_true", help="print JSON")
    restoring.add_argument("--from", type=int, metavar="N", dest="number", help="an earlier save; see `list`")
    restoring.add_argument(
        "--only", choices=("user", "input", "voices"), metavar="FOLDER", help="only this: user, input or voices"
    )
    restoring.add_argument(
        "--at-start",
        type=float,
        metavar="SECONDS",
        help="as at the start of a pod: wait for the bucket so long, and leave out what was removed here since the "
        "last save",
    )
    listing = command("list", "the saves in the bucket, newest last")
    listing.add_argument("--json", action="store_true", help="print JSON")
    pruning = command("prune", "remove files from the bucket that no save names any more; without --yes show them")
    pruning.add_argument("--yes", action="store_true", help="remove them")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Carry one action out."""
    from hearmeman.settings import load

    settings = load(environ)
    from hearmeman.sync.explain import explained
    from hearmeman.workspace.space import Space

    space = Space.of(settings)
    if args.action == "restore" and args.at_start is not None:
        return _at_start(space, args.at_start, _tops(args))
    try:
        with explained(space.store.bucket):
            if args.action == "save":
                return _save(space, settings, args.dry_run, args.json)
            if args.action == "restore":
                return _restore(space, args)
            return _list(space, args.json) if args.action == "list" else _prune(space, args.yes)
    except FileNotFoundError as error:
        raise HearmemanError(f"{error.filename} is not there: is the volume mounted?") from error


def _save(space: Space, settings: Settings, dry_run: bool, as_json: bool) -> int:
    from hearmeman.workspace.save import save

    with _bar("sending", None, shown=not as_json) as progress:
        done = save(space, settle=0.0, check=True, dry_run=dry_run, progress=progress)
    changes = done.changes()
    if as_json:
        told: dict[str, Any] = {"number": done.save.number, "new": done.is_new, "dry_run": dry_run, "at": space.address}
        print(json.dumps({**told, **changes, "unread": dict(done.unread)}, indent=2))
    elif not done.is_new:
        print(f"nothing has changed since save {done.save.number} in {space.address}")
    else:
        for what, paths in changes.items():
            for path in paths:
                print(f"  {what:8} {path}")
        verb = "would be" if dry_run else "is"
        print(f"save {done.save.number} {verb} in {space.address}: {_words(done.save)}")
    if done.unread:
        text = "\n".join(f"  {path}: {why}" for path, why in done.unread.items())
        raise PartlyDoneError(
            f"{count(len(done.unread), 'file')} could not be read; what was saved of them before stays:\n{text}"
        )
    return 0


def _words(save: Any) -> str:
    parts = (count(len(save.files), "file"), size(save.size), count(len(save.nodes), "added node"))
    return ", ".join((*parts, count(len(save.packages), "added package")))


def _tops(args: argparse.Namespace) -> tuple[str, ...]:
    from hearmeman.workspace.contents import FOLDERS

    return (args.only,) if args.only else FOLDERS


def _is_newest(space: Space, save: Save) -> bool:
    """Whether no later save can be used; one of another version is later."""
    from hearmeman.workspace.contents import SaveError

    try:
        return space.store.latest()[0].number == save.number
    except SaveError:
        return False


def _restore(space: Space, args: argparse.Namespace) -> int:
    from hearmeman.workspace import restore

    # One that is asked for by its number is had even where the newest is of another version.
    found = space.store.latest()[0] if args.number is None else space.store.read(args.number)
    if not found.number:
        print(json.dumps({"number": 0}) if args.json else f"there is no save in {space.address}")
        return 0
    with space.lock():
        wanted = restore.plan(space, found, _tops(args))
        failed: dict[str, str] = {}
        if not args.dry_run:
            with _bar("fetching", wanted.bytes, shown=not args.json) as progress:
                failed = restore.execute(space, wanted, args.number is None or _is_newest(space, found), progress)
            space.note_added(found)
    if args.json:
        told = {"number": found.number, "dry_run": args.dry_run, "bytes": wanted.bytes, "there": wanted.there}
        print(json.dumps({**told, "missing": list(wanted.missing), "failed": failed}, indent=2))
    else:
        for path, entry in wanted.missing.items():
            if path not in failed:
                print(f"  {'would be fetched' if args.dry_run else 'fetched'} {path}, {size(entry.size)}")
        when = age(time.time() - found.at)
        print(
            f"save {found.number} of pod {found.pod}, {when}: {_words(found)}; already here: "
            f"{count(wanted.there, 'file')}"
        )
        if found.nodes or found.packages:
            print("added nodes and packages: `hearmeman nodes install --dry-run` shows what is missing of them")
    if failed:
        text = "\n".join(f"  {path}: {why}" for path, why in failed.items())
        raise PartlyDoneError(
            f"{count(len(failed), 'file')} did not come back; run it again to try them once more:\n{text}"
        )
    return 0


def _at_start(space: Space, seconds: float, tops: tuple[str, ...]) -> int:
    """Restore before ComfyUI starts; a bucket that does not answer must not keep the pod from starting."""
    from hearmeman.sync.explain import explained
    from hearmeman.workspace import restore
    from hearmeman.workspace.contents import SaveError

    deadline = time.monotonic() + seconds
    said = ""
    while True:
        failed: dict[str, str] = {}
        try:
            with explained(space.store.bucket), space.lock():
                latest, _ = space.store.latest()
                wanted = restore.plan(space, latest, tops, all_missing=False)
                failed = restore.execute(space, wanted, True, lambda sent: None)
                space.note_added(latest)
        except SaveError as error:
            raise PartlyDoneError(f"the workspace was not restored: {error}") from error
        except HearmemanError as error:
            why = str(error)
        else:
            why = next(iter(failed.values()), "")
            got = len(wanted.missing) - len(failed)
            if got or not failed:
                counts = {"nodes": len(latest.nodes), "packages": len(latest.packages)}
                log("workspace.restored", save=latest.number, files=got, there=wanted.there, **counts)
        if not why:
            return 0
        if time.monotonic() > deadline:
            for path, reason in failed.items():
                log("workspace.not_restored", file=path, why=reason)
            raise PartlyDoneError(
                f"the workspace was not restored within {seconds:g} s: {why}; ComfyUI starts without it; "
                "run `hearmeman workspace restore` later"
            )
        if why != said:
            log("workspace.waiting", failed=len(failed) or None, why=why)
            said = why
        time.sleep(PAUSE)


def _list(space: Space, as_json: bool) -> int:
    from hearmeman.workspace.contents import SaveError

    kept = space.store.saves()
    rows: list[dict[str, Any]] = []
    for one in kept[-SHOWN:]:
        try:
            found = space.store.read(one.number)
        except SaveError as error:
            rows.append({"number": one.number, "at": one.at, "problem": str(error)})
        else:
            facts = asdict(found)
            counts = {name: len(facts[name]) for name in ("files", "nodes", "packages")}
            rows.append({"number": one.number, "at": one.at, "pod": found.pod, "bytes": found.size, **counts})
    if as_json:
        print(json.dumps({"in": space.address, "saves": rows}, indent=2))
        return 0
    now = time.time()
    cells = [
        (
            row["number"],
            age(now - row["at"]),
            row["pod"],
            row["files"],
            size(row["bytes"]),
            row["nodes"],
            row["packages"],
        )
        for row in rows
        if "problem" not in row
    ]
    head = ("save", "made", "pod", "files", "size", "nodes", "packages")
    print("\n".join(table(cells, head, right=(0, 3, 4, 5, 6))) if cells else f"there is no save in {space.address}")
    for row in rows:
        if "problem" in row:
            print(f"save {row['number']} cannot be used: {row['problem']}")
    return 0


def _prune(space: Space, yes: bool) -> int:
    """Remove the files that no save names; one save that cannot be read, and nothing is removed."""
    named = {entry.sha256 for one in space.store.saves() for entry in space.store.read(one.number).files.values()}
    now = time.time()
    loose = [(name, held) for name, held, at in space.store.files() if name not in named and now - at > PRUNE_AGE]
    total = size(sum(held for _, held in loose))
    if yes:
        for name, _ in loose:
            space.store.forget_file(name)
    what = "were removed" if yes else "would be removed; --yes removes them"
    print(f"{count(len(loose), 'file')}, {total}, older than a day and named by no save, {what}")
    return 0


@contextlib.contextmanager
def _bar(name: str, total: float | None, shown: bool) -> Iterator[Callable[[int], None]]:
    drawn = bars(sys.stderr) if shown else None
    if drawn is None:
        yield lambda moved: None
        return
    done, lock = 0, threading.Lock()
    with drawn:

        def progress(moved: int) -> None:
            nonlocal done
            with lock:
                done += moved
                drawn.draw({name: Bar(name, done, total)})

        yield progress
