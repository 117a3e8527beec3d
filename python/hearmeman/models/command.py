"""`hearmeman models list | plan | fetch | verify`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearmeman.errors import HearmemanError, PartlyDoneError
from hearmeman.log import log

if TYPE_CHECKING:
    from hearmeman.models.catalogue import Catalogue
    from hearmeman.models.plan import Plan
    from hearmeman.models.store import Store
    from hearmeman.settings import Settings

_ACTIONS = {
    "list": "tell which models there are and which are asked for",
    "plan": "tell what a fetch would do",
    "fetch": "fetch what is asked for and is not there",
    "verify": "read every file again and name those that are not what they should be",
}


class SomeCorruptError(PartlyDoneError):
    """Files are missing or are not what they should be."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    which = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in _ACTIONS.items():
        sub = which.add_parser(name, help=summary, description=summary)
        sub.add_argument("--json", action="store_true", help="print JSON on standard output")
        if name != "list":
            sub.add_argument("models", nargs="*", metavar="MODEL", help="ids, beside those that the settings ask for")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Do what was asked; returns the exit code.

    Raises:
        HearmemanError: one of its leaves, with what happened and what to do.
    """
    from hearmeman.models import catalogue, plan, store
    from hearmeman.settings import load

    settings = load(environ)
    known = catalogue.read(Path(settings.model_catalogue))
    models = plan.asked_for(known, settings, getattr(args, "models", ()))
    if args.action == "list":
        return _list(known, {model.id for model in models}, args.json)
    shelf = store.Store(Path(settings.models_path))
    needed = {name for model in models for name in model.files}
    made = plan.make_plan(known, models, shelf.look(f for f in known.files if f.id in needed))
    if args.action == "verify":
        return _verify(made, shelf, args.json)
    if args.action == "fetch" and not settings.dry_run:
        return _fetch(made, shelf, settings, args.json)
    print(json.dumps(_as_json(made), indent=2) if args.json else "\n".join(_lines(made)))
    plan.check_space(made, settings.models_path)
    return 0


def _list(known: Catalogue, asked: set[str], as_json: bool) -> int:
    if as_json:
        rows = [{**m.model_dump(), "asked_for": m.id in asked} for m in known.models]
        print(json.dumps({"models": rows, "files": [f.model_dump() for f in known.files]}, indent=2))
        return 0
    sizes = {f.id: f.size or 0 for f in known.files}
    for model in known.models:
        mark = "*" if model.id in asked else " "
        when = " ".join(f"{k}={v}" for k, v in model.when.items())
        print(
            f"{mark} {model.id:22} {sum(sizes[f] for f in model.files) / 1e9:7.3f} GB  {model.title}  {when}".rstrip()
        )
    print("* is asked for by the settings")
    return 0


def _fetch(made: Plan, shelf: Store, settings: Settings, as_json: bool) -> int:
    from hearmeman.models import fetch, plan

    plan.check_space(made, settings.models_path)
    log("models.plan", fetch=len(made.fetch), bytes=made.fetch_bytes, files=len(made.steps), free=made.free_bytes)
    try:
        fetch.carry_out(made, shelf, settings)
    except OSError as error:
        raise HearmemanError(f"{error.filename} cannot be written: {error.strerror}: free some space") from error
    finally:
        if as_json:
            state = Path(settings.state_path) / "models.json"
            print(state.read_text(encoding="utf-8") if state.exists() else "{}")
    log("models.complete", files=len(made.steps))
    return 0


def _verify(made: Plan, shelf: Store, as_json: bool) -> int:
    from hearmeman.models.verify import CorruptError, check

    problems: dict[str, str] = {}
    for step in made.steps:
        file, path = step.file, shelf.root / step.file.to
        try:
            shelf.note(file, check(path, file.size, file.sha256), str(file.source))
        except FileNotFoundError:
            problems[file.to] = f"{file.to} is missing"
        except CorruptError as error:
            problems[file.to] = str(error)
        if not as_json:
            print(f"{file.to}: {problems.get(file.to, 'ok')}", flush=True)
    if as_json:
        print(json.dumps({step.file.to: problems.get(step.file.to, "ok") for step in made.steps}, indent=2))
    if problems:
        raise SomeCorruptError(
            f"{len(problems)} of {len(made.steps)} files are not what they should be: `hearmeman models fetch` mends them"
        )
    return 0


def _as_json(made: Plan) -> dict[str, Any]:
    steps = [
        {"to": s.file.to, "action": s.action, "reason": s.reason, "bytes": s.bytes, "models": s.models}
        for s in made.steps
    ]
    return {
        "models": [model.id for model in made.models],
        "steps": steps,
        "fetch_bytes": made.fetch_bytes,
        "free_bytes": made.free_bytes,
        "notes": made.notes,
    }


def _lines(made: Plan) -> list[str]:
    shown = [f"{s.action:8} {s.bytes / 1e9:8.3f} GB  {s.file.to}  ({s.reason})" for s in made.steps]
    shown += [f"note     {note}" for note in made.notes]
    total = f"{made.fetch_bytes / 1e9:.3f} GB to fetch, {made.free_bytes / 1e9:.3f} GB free"
    return [*shown, f"{len(made.fetch)} of {len(made.steps)} files to fetch: {total}"]
