"""`hearmeman models list | show | plan | fetch | verify | lock | prune`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearmeman.errors import PartlyDoneError

if TYPE_CHECKING:
    from hearmeman.models.context import Context
    from hearmeman.models.plan import Plan, Step

_ACTIONS = {
    "list": "list all models, and which are enabled",
    "show": "all that is known about a model: files, sizes, sources, licences, and what enables it",
    "plan": "what a fetch would do, and what to know before",
    "fetch": "fetch what is enabled and missing",
    "add": "add models by address to this volume, for later pods too, and fetch them",
    "remove": "forget models that were added by address; `prune` then removes their files",
    "verify": "read every file again and list those that are damaged",
    "lock": "ask the sources for revision, size and hash, and record them",
    "prune": "list, and with --yes remove, fetched files that no enabled model needs",
}


class SomeCorruptError(PartlyDoneError):
    """Files are missing or are not what they should be."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    which = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in _ACTIONS.items():
        sub = which.add_parser(name, help=summary)
        sub.add_argument("--json", action="store_true", help="print JSON on standard output")
        if name == "show":
            sub.add_argument("models", nargs="+", metavar="MODEL", help="ids, as `hearmeman models list` names them")
        elif name != "list":
            sub.add_argument("models", **_which(name))
        if name == "lock":
            sub.add_argument("--all", action="store_true", help="lock every model of the catalogue")
            sub.add_argument("--out", type=Path, help="where to write (beside the catalogue)")
            sub.add_argument("--check", action="store_true", help="write nothing; exit 3 if something moved")
        if name == "prune":
            sub.add_argument("--yes", action="store_true", help="remove what is listed")
            sub.add_argument("--everything", action="store_true", help="even when no model is enabled")


def _which(action: str) -> dict[str, Any]:
    if action in ("add", "remove"):
        return {
            "nargs": "+",
            "metavar": "ADDRESS",
            "help": "civitai:VERSION@FOLDER, hf:OWNER/REPO/PATH@FOLDER, https://…@FOLDER",
        }
    asked = "instead of" if action == "lock" else "besides"
    return {"nargs": "*", "metavar": "MODEL", "help": f"ids or addresses, {asked} those that the settings enable"}


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Do what was asked; returns the exit code.

    Raises:
        HearmemanError: one of its leaves, with what happened and what to do.
    """
    from hearmeman.models import show
    from hearmeman.models.context import make_context

    if args.action == "add":
        from hearmeman.models import add_command

        add_command.refuse_ids(args.models)
    context = make_context(environ, () if args.action == "remove" else getattr(args, "models", ()))
    if args.action == "list":
        asked = {model.id for model in context.models}
        print(show.catalogue_json(context.catalogue, asked) if args.json else show.catalogue(context.catalogue, asked))
        return 0
    if args.action == "show":
        chosen = [model for model in context.catalogue.models if model.id in args.models]
        shown = show.models_json(context, chosen) if args.json else show.models(context, chosen)
        print(shown)
        return 0
    if args.action == "lock":
        from hearmeman.models import lock_command

        return lock_command.run(args, context)
    if args.action == "prune":
        from hearmeman.models import prune

        return prune.run(args, context)
    if args.action in ("add", "remove"):
        from hearmeman.models import add_command

        if args.action == "remove":
            return add_command.remove(args, context)
        context = add_command.add(args, context)
    made = context.plan()
    if args.action == "verify":
        return _verify(made, context, args.json)
    if args.action == "plan" or context.settings.dry_run:
        print(show.plan_json(made) if args.json else show.plan(made))
        context.check_space(made)
        return 0
    from hearmeman.models import fetch_command, on_host

    if on_host.link(made.having("fetch"), context.store.root, Path(context.settings.model_host_cache)):
        made = context.plan()
    return fetch_command.run(made, context, args.json)


def _verify(made: Plan, context: Context, as_json: bool) -> int:
    results: dict[str, str] = {}
    problems = []
    for number, step in enumerate(made.steps, 1):
        if not as_json:
            print(f"{number} of {len(made.steps)}  {step.file.to} ... ", end="", flush=True)
        results[step.file.to], wrong = _verified(step, context)
        problems += [results[step.file.to]] if wrong else []
        if not as_json:
            print(results[step.file.to], flush=True)
    if as_json:
        print(json.dumps(results, indent=2))
    if problems:
        sys.stdout.flush()
        raise SomeCorruptError(
            f"{len(problems)} of {len(made.steps)} files are not what they should be: `hearmeman models fetch` "
            "fixes them:\n" + "\n".join(f"  {why}" for why in problems)
        )
    return 0


def _verified(step: Step, context: Context) -> tuple[str, bool]:
    """Read one file again; gives what is to be said, and whether it is a problem."""
    from hearmeman.models.errors import CorruptError, FetchError, TransientError
    from hearmeman.models.http import Http
    from hearmeman.models.sources import Sources
    from hearmeman.models.statements import Statements
    from hearmeman.models.verify import check

    file, store = step.file, context.store
    path, unasked = store.root / file.to, ""
    if step.action == "list" or not path.is_file():
        return f"{file.to} is missing", True
    record = store.read_records().get(file.to)
    try:
        file = Statements(store, Sources(context.settings, Http(1, 30))).learn(file)
    except (FetchError, TransientError) as error:
        unasked = f"its format is right, but it was not compared: {error}"
    try:
        digest = check(path, file.size, file.sha256, file.blob, file.about)
        if record and not file.sha256 and record.sha256 != digest:
            raise CorruptError(f"{file.to} has changed since it was fetched")
    except CorruptError as error:
        return str(error), True
    if not unasked:
        # The file is right even where a full or read-only disk keeps us from noting it.
        with contextlib.suppress(OSError):
            store.note(file, digest, record.source if record else "")
    return unasked or "ok", False
