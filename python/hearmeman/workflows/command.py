"""`hearmeman workflows list | show | check | run | batch | rerun | schema`: lists workflows, and calls the other
modules.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearmeman import terminal
from hearmeman.image import WORKFLOWS_DIR
from hearmeman.workflows import library, rerun_command, run_command, schema, schema_command

DEFAULT_DIR = str(WORKFLOWS_DIR)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    which = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    lister = which.add_parser("list", help="list all workflows")
    shower = which.add_parser("show", help="show a workflow's inputs, its models, and what is missing")
    checker = which.add_parser("check", help="check every workflow against ComfyUI's nodes and the catalogue's files")
    runner = which.add_parser("run", help="run one workflow and wait for its outputs")
    batcher = which.add_parser("batch", help="run one workflow for every row of a file; each row once, resumable")
    again = which.add_parser("rerun", help="make an output again, from the graph and the models that made it")
    recorder = which.add_parser("schema", help="write node-schema.json from a running ComfyUI, and say what changed")
    for one in (lister, shower, checker, runner, batcher, recorder):
        one.add_argument("--dir", default=DEFAULT_DIR, metavar="DIR", help="folder of the workflows (%(default)s)")
    for one in (lister, shower, checker, runner, batcher, again, recorder):
        one.add_argument("--json", action="store_true", help="print JSON on standard output")
    for one in (shower, runner, batcher):
        one.add_argument("name", help="name of the workflow, or the path of your own graph (API format)")
    lister.add_argument("--url", default="", help="show which of them that ComfyUI has all nodes and models for")
    run_command.add_arguments(runner, batcher)
    rerun_command.add_arguments(again)
    schema_command.add_arguments(recorder)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Do what was asked; returns the exit code.

    Raises:
        HearmemanError: one of its leaves, with what happened and what to do.
    """
    if args.action == "rerun":
        return rerun_command.run(args, environ)
    if args.action == "schema":
        return schema_command.run(args, environ)
    if args.action == "list":
        return _list(library.load(Path(args.dir)), args, environ)
    if args.action == "check":
        return _check(library.load(Path(args.dir)), Path(args.dir), args.json, environ)
    is_own = library.is_path(args.name)
    workflow = library.own(Path(args.name)) if is_own else library.find(library.load(Path(args.dir)), args.name)
    if args.action == "show":
        from hearmeman.workflows import show_command

        return show_command.run(workflow, Path(args.dir), args.json, environ)
    if args.action == "batch" and args.rows.suffix.lower() == ".json":
        from hearmeman.workflows import film_command

        return film_command.run(workflow, args, environ)
    return (
        run_command.batch(workflow, args, environ)
        if args.action == "batch"
        else run_command.run(workflow, args, environ)
    )


def _entry(workflow: library.Workflow) -> dict[str, object]:
    return {
        "name": workflow.name,
        "title": workflow.title,
        "models": list(workflow.needs(workflow.defaults({}))),
        "inputs": [*workflow.choices, *workflow.inputs],
    }


def _list(workflows: Mapping[str, library.Workflow], args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    entries = [_entry(workflow) for workflow in workflows.values()]
    lacking = _lacking(workflows, args, environ) if args.url else {}
    for entry in entries if args.url else ():
        entry["lacks"] = lacking[str(entry["name"])]
    if args.json:
        print(json.dumps(entries, indent=2))
        return 0
    rows = []
    for workflow in workflows.values():
        lacks = lacking.get(workflow.name, [])
        more = f"{lacks[0]}{f' and {len(lacks) - 1} more' if len(lacks) > 1 else ''}" if lacks else ""
        rows.append((workflow.name, *([f"lacks {more}" if lacks else "ready"] if args.url else []), workflow.title))
    hint = terminal.wrapped("`hearmeman workflows show NAME` shows a workflow's inputs and models")
    print("\n".join([*terminal.table(rows), "", *hint]))
    return 0


def _lacking(
    workflows: Mapping[str, library.Workflow], args: argparse.Namespace, environ: Mapping[str, str]
) -> dict[str, list[str]]:
    from hearmeman.workflows import remote
    from hearmeman.workflows.client import Client

    url, token = run_command.address(args.url, environ)

    async def ask() -> dict[str, Any]:
        async with Client(url, token) as client:
            return await client.object_info()

    info, nodes = asyncio.run(ask()), schema.read(Path(args.dir) / schema.FILE)
    found = {}
    for workflow in workflows.values():
        graph = library.choose(library.graph(workflow), workflow, workflow.defaults(environ))
        found[workflow.name] = remote.lacks(schema.reachable(graph, nodes), info, nodes)
    return found


def _check(workflows: Mapping[str, library.Workflow], folder: Path, as_json: bool, environ: Mapping[str, str]) -> int:
    from hearmeman.models import catalogue
    from hearmeman.settings import load
    from hearmeman.workflows import check

    known = catalogue.read(Path(load(environ).model_catalogue))
    found = check.problems(workflows, schema.read(folder / schema.FILE), known)
    without = check.toggles_without(workflows, known)
    if as_json:
        print(json.dumps({"problems": found, "toggles_without_workflow": without}, indent=2))
    else:
        lines = found or [f"{len(workflows)} workflows fit ComfyUI's nodes and the catalogue's files"]
        print("\n".join([*lines, *([f"no workflow uses what these fetch: {', '.join(without)}"] if without else [])]))
    return 1 if found else 0
