"""`hearmeman models list | plan | fetch | verify | lock | prune`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hearmeman.errors import PartlyDoneError

if TYPE_CHECKING:
    from hearmeman.models.context import Context
    from hearmeman.models.plan import Plan

_ACTIONS = {
    "list": "tell which models there are and which are asked for",
    "plan": "tell what a fetch would do, and what a person should know first",
    "fetch": "fetch what is asked for and is not there",
    "verify": "read every file again and name those that are not what they should be",
    "lock": "ask the sources for revision, size and hash, and write them down",
    "prune": "name, and with --yes remove, what was fetched and no enabled model needs",
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
        if name == "lock":
            sub.add_argument("--all", action="store_true", help="lock every model of the catalogue")
            sub.add_argument("--out", type=Path, help="where to write (beside the catalogue)")
            sub.add_argument("--check", action="store_true", help="write nothing; 3 if something moved")
        if name == "prune":
            sub.add_argument("--yes", action="store_true", help="remove what is named")
            sub.add_argument("--everything", action="store_true", help="even when no model is asked for")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Do what was asked; returns the exit code.

    Raises:
        HearmemanError: one of its leaves, with what happened and what to do.
    """
    from hearmeman.models import show
    from hearmeman.models.context import make_context

    context = make_context(environ, getattr(args, "models", ()))
    if args.action == "list":
        asked = {model.id for model in context.models}
        print(show.catalogue_json(context.catalogue, asked) if args.json else show.catalogue(context.catalogue, asked))
        return 0
    if args.action == "lock":
        from hearmeman.models import lock_command

        return lock_command.run(args, context)
    if args.action == "prune":
        from hearmeman.models import prune

        return prune.run(args, context)
    made = context.plan()
    if args.action == "verify":
        return _verify(made, context, args.json)
    if args.action == "plan" or context.settings.dry_run:
        print(show.plan_json(made) if args.json else show.plan(made))
        context.check_space(made)
        return 0
    from hearmeman.models import fetch_command

    return fetch_command.run(made, context, args.json)


def _verify(made: Plan, context: Context, as_json: bool) -> int:
    from hearmeman.models.errors import CorruptError
    from hearmeman.models.verify import check

    problems: dict[str, str] = {}
    for number, step in enumerate(made.steps, 1):
        file, path = step.file, context.store.root / step.file.to
        if not as_json:
            print(f"{number} of {len(made.steps)}  {file.to} ... ", end="", flush=True)
        try:
            if step.action == "list":
                raise FileNotFoundError
            digest = check(path, file.size, file.sha256, file.blob, file.about)
            record = context.store.read_records().get(file.to)
            if record and not file.sha256 and record.sha256 != digest:
                raise CorruptError(f"{file.to} has changed since it was fetched")
            # The file is right even where a full or read-only disk keeps us from noting it.
            with contextlib.suppress(OSError):
                context.store.note(file, digest, record.source if record else "")
        except FileNotFoundError:
            problems[file.to] = f"{file.to} is missing"
        except CorruptError as error:
            problems[file.to] = str(error)
        if not as_json:
            print(problems.get(file.to, "ok"), flush=True)
    if as_json:
        print(json.dumps({step.file.to: problems.get(step.file.to, "ok") for step in made.steps}, indent=2))
    if problems:
        sys.stdout.flush()
        raise SomeCorruptError(
            f"{len(problems)} of {len(made.steps)} files are not what they should be: `hearmeman models fetch` mends them:\n"
            + "\n".join(f"  {why}" for why in problems.values())
        )
    return 0
