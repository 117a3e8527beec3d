"""`hearmeman workflows list | show | check | run | batch`: what there is, what it takes, one run with its progress, many runs."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hearmeman import terminal
from hearmeman.errors import HearmemanError, PartlyDoneError, UsageError
from hearmeman.image import WORKFLOWS_DIR
from hearmeman.log import log
from hearmeman.terminal import Bar, bars
from hearmeman.workflows import library, schema

if TYPE_CHECKING:
    from hearmeman.workflows.answers import Progress, Report
    from hearmeman.workflows.client import Ran

DEFAULT_DIR = str(WORKFLOWS_DIR)


class SaveError(HearmemanError):
    """An output could not be written to the folder given with --save."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    which = parser.add_subparsers(dest="action", required=True)
    lister = which.add_parser("list", help="the workflows that there are")
    shower = which.add_parser("show", help="what one takes, which models it needs, and what is missing")
    checker = which.add_parser("check", help="check every workflow against ComfyUI's nodes and the catalogue's files")
    runner = which.add_parser("run", help="run one workflow and wait for its outputs")
    batcher = which.add_parser("batch", help="run one workflow for every row of a file; each row once, resumable")
    for one in (lister, shower, checker, runner, batcher):
        one.add_argument("--dir", default=DEFAULT_DIR, metavar="DIR", help="folder of the workflows (%(default)s)")
        one.add_argument("--json", action="store_true", help="print JSON on standard output")
    for one in (shower, runner, batcher):
        one.add_argument("name", help="name of the workflow")
    for one in (runner, batcher):
        one.add_argument(
            "--set",
            dest="settings",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="set an input; a picture, a video or a sound is given by its path",
        )
        one.add_argument("--url", default="", help="ComfyUI's address (http://127.0.0.1:COMFYUI_PORT, usually 8188)")
        one.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="seconds to wait (%(default)g)")
    runner.add_argument("--save", default="", metavar="DIR", help="download the outputs into this folder")
    batcher.add_argument(
        "rows", type=Path, help="a .csv whose header names the inputs, or a .jsonl with an object a line"
    )
    batcher.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files and the record")
    batcher.add_argument("--resume", action="store_true", help="go on with what is in DIR")
    batcher.add_argument(
        "--at-once", type=int, default=2, metavar="N", help="rows that ComfyUI is given at one time (%(default)s)"
    )


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Do what was asked; returns the exit code.

    Raises:
        HearmemanError: one of its leaves, with what happened and what to do.
    """
    workflows = library.load(Path(args.dir))
    if args.action == "list":
        print(json.dumps([_entry(w) for w in workflows.values()], indent=2) if args.json else _listing(workflows))
        return 0
    if args.action == "show":
        return _show(library.find(workflows, args.name), Path(args.dir), args.json, environ)
    if args.action == "check":
        return _check(workflows, Path(args.dir), args.json, environ)
    if not args.timeout > 0:
        raise UsageError(f"--timeout {args.timeout:g}: it takes a number of seconds above 0")
    if args.action == "batch" and args.at_once < 1:
        raise UsageError(f"--at-once {args.at_once}: it takes a number above 0")
    url = args.url or environ.get("COMFYUI_URL") or f"http://127.0.0.1:{environ.get('COMFYUI_PORT') or 8188}"
    if not _is_address(url):
        raise UsageError(f"--url {url}: it takes an address like http://127.0.0.1:8188")
    workflow = library.find(workflows, args.name)
    if args.action == "batch":
        return _batch(workflow, args, url, environ)
    graph, files = prepared(workflow, args.settings, Path(args.dir), environ)
    from hearmeman.workflows import client

    save = Path(args.save) if args.save else None
    log("workflow_started", name=workflow.name, url=url)
    try:
        with _progress() as report:
            ran = asyncio.run(client.run(url, graph, args.timeout, save, report, files))
    except OSError as error:
        message = f"cannot write to the folder given with --save, {error.filename or args.save}: {error.strerror}"
        raise SaveError(message) from error
    log("workflow_finished", name=workflow.name, seconds=round(ran.seconds, 3), files=len(ran.result.outputs))
    if ran.result.from_cache:
        meaning = "ComfyUI had run the same workflow before and wrote no new file; change an input for a new one"
        log("workflow_unchanged", name=workflow.name, meaning=meaning)
    _print(ran, args.json)
    return 0


def _batch(workflow: library.Workflow, args: argparse.Namespace, url: str, environ: Mapping[str, str]) -> int:
    from hearmeman.workflows import batch
    from hearmeman.workflows.client import Client

    def make(settings: list[str]) -> tuple[library.Graph, dict[tuple[str, str], Path]]:
        return prepared(workflow, settings, Path(args.dir), environ)

    rows = batch.prepare(batch.read_rows(args.rows), args.settings, make)

    def say(number: int, text: str) -> None:
        log("batch_row", row=f"{number}/{len(rows)}", what=text)

    async def go() -> batch.Outcome:
        async with Client(url) as client:
            return await batch.run(client, rows, args.out, args.at_once, args.timeout, say, args.resume)

    outcome = asyncio.run(go())
    if args.json:
        print(json.dumps({"rows": len(rows), "done": outcome.done, "failed": outcome.failed}, indent=2))
    else:
        print(f"{outcome.done} of {len(rows)} rows are done; their files are in {args.out}")
    if outcome.failed:
        raise PartlyDoneError(
            f"{len(outcome.failed)} of {len(rows)} rows failed: "
            f"{', '.join(map(str, sorted(outcome.failed)))}; the same command with --resume tries them again"
        )
    return 0


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def prepared(
    workflow: library.Workflow, settings: list[str], folder: Path, environ: Mapping[str, str]
) -> tuple[library.Graph, dict[tuple[str, str], Path]]:
    """The graph to send, checked against ComfyUI's nodes, and the files to upload for it.

    Raises:
        UsageError: a setting is unknown, out of range, without effect, or names a file that is not there.
    """
    nodes = schema.read(folder / schema.FILE)
    options = library.chosen(workflow, settings, environ)
    whole = library.apply(workflow, library.choose(library.graph(workflow), workflow, options), settings)
    graph = schema.reachable(whole, nodes)
    files: dict[tuple[str, str], Path] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key in workflow.choices:
            continue
        places = [place for place in workflow.inputs[key].places if place[0] in graph]
        if not places:
            chosen = ", ".join(f"{name}={value}" for name, value in options.items())
            raise UsageError(
                f"--set {key} has no effect with {chosen}: `hearmeman workflows show {workflow.name}` says when"
            )
        for node, name in places:
            spec = nodes.spec(graph[node]["class_type"], name)
            if isinstance(spec, dict) and spec.get("folder") == "input":
                if not Path(text).is_file():
                    raise UsageError(f"--set {key}={text}: there is no such file")
                files[node, name] = Path(text)
    missing = [
        key
        for key, parameter in workflow.inputs.items()
        for node, name in parameter.places
        if node in graph and (node, name) not in files and _is_upload(nodes, graph, node, name)
    ]
    if missing:
        raise UsageError(f"{workflow.name} needs " + " and ".join(f"--set {key}=FILE" for key in missing))
    wrong = schema.mistakes(graph, nodes)
    if wrong:
        raise UsageError(f"ComfyUI would refuse {workflow.name}:\n" + "\n".join(f"  {mistake}" for mistake in wrong))
    return graph, files


def _is_upload(nodes: schema.Schema, graph: library.Graph, node: str, name: str) -> bool:
    spec = nodes.spec(graph[node]["class_type"], name)
    return isinstance(spec, dict) and spec.get("folder") == "input"


def _entry(workflow: library.Workflow) -> dict[str, object]:
    return {
        "name": workflow.name,
        "title": workflow.title,
        "models": list(workflow.needs(workflow.defaults({}))),
        "inputs": [*workflow.choices, *workflow.inputs],
    }


def _listing(workflows: Mapping[str, library.Workflow]) -> str:
    lines = terminal.table([(workflow.name, workflow.title) for workflow in workflows.values()])
    return "\n".join([*lines, "", "`hearmeman workflows show NAME` says what one takes and needs"])


def _parameters(workflow: library.Workflow, folder: Path, environ: Mapping[str, str]) -> list[dict[str, Any]]:
    nodes = schema.read(folder / schema.FILE)
    graph = library.graph(workflow)
    defaults = workflow.defaults(environ)
    found: list[dict[str, Any]] = [
        {"name": name, "default": defaults[name], "choices": [*choice.options], "help": choice.help}
        for name, choice in workflow.choices.items()
    ]
    for key, parameter in workflow.inputs.items():
        node, name = parameter.places[0]
        spec = nodes.spec(graph[node]["class_type"], name)
        low, high, step = schema.range_of(spec)
        value = "a file" if _is_upload(nodes, graph, node, name) else graph[node]["inputs"][name]
        found.append(
            {"name": key, "default": value, "choices": schema.choices_of(spec), "help": parameter.help}
            | {"least": low, "most": high, "step": step}
        )
    return found


def _show(workflow: library.Workflow, folder: Path, as_json: bool, environ: Mapping[str, str]) -> int:
    parameters = _parameters(workflow, folder, environ)
    needs = workflow.needs(workflow.defaults(environ))
    missing = _missing(needs, environ)
    if as_json:
        facts = {"name": workflow.name, "title": workflow.title, "about": workflow.about, "parameters": parameters}
        print(json.dumps({**facts, "models": list(needs), "missing": missing}, indent=2))
        return 0
    lines = [workflow.title, *([workflow.about] if workflow.about else []), ""]
    rows = []
    for parameter in parameters:
        choices = parameter["choices"]
        takes = f"; {', '.join(map(str, choices))}" if choices and len(choices) <= 8 else ""
        rows.append((parameter["name"], _short(parameter["default"]), f"{parameter['help']}{takes}"))
    lines += terminal.table(rows, head=("--set", "default", "meaning"), wraps=(1, 2))
    lines += ["", f"models: {', '.join(needs) or 'none'}"]
    if missing:
        lines.append(f"missing: {', '.join(missing)}; fetch: hearmeman models fetch {' '.join(missing)}")
    print("\n".join(lines))
    return 0


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _missing(needs: tuple[str, ...], environ: Mapping[str, str]) -> list[str]:
    """Models of `needs` that are not on the disk whole."""
    from hearmeman.models.context import make_context

    if not needs:
        return []
    made = make_context({**environ, "MODELS": "", "ENABLE_CONTROLNET": "false"}, needs).plan()
    absent = {model for step in made.having("fetch", "list") for model in step.models}
    return [name for name in needs if name in absent]


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


def _print(ran: Ran, as_json: bool) -> None:
    saved: list[str | None] = [str(path) for path in ran.saved] or [None for _ in ran.result.outputs]
    if not as_json:
        for output, path in zip(ran.result.outputs, saved, strict=True):
            print(path or output.path)
        return
    files = [
        {
            "node": o.node,
            "kind": o.kind,
            "filename": o.filename,
            "subfolder": o.subfolder,
            "type": o.type,
            "saved": path,
        }
        for o, path in zip(ran.result.outputs, saved, strict=True)
    ]
    about = {"prompt_id": ran.result.prompt_id, "seconds": round(ran.seconds, 3), "from_cache": ran.result.from_cache}
    print(json.dumps({**about, "outputs": files}, indent=2))


@contextlib.contextmanager
def _progress() -> Iterator[Report]:
    """A bar on a terminal, log lines elsewhere."""
    shown = bars(sys.stderr, steps=True)
    if shown is None:
        yield _Lines()
        return
    with shown:
        shown.draw({"": Bar("queued", 0)})

        def report(progress: Progress) -> None:
            name = f"{progress.class_type} (node {progress.node})"
            shown.draw({"": Bar(name, progress.value or 0, progress.max)})

        yield report


class _Lines:
    """A log line per node, and per second at most within one."""

    def __init__(self) -> None:
        self._node, self._last = "", 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.node == self._node and now - self._last < 1 and progress.value != progress.max:
            return
        self._node, self._last = progress.node, now
        step = None if progress.max is None else f"{progress.value:g}/{progress.max:g}"
        log("workflow_progress", node=progress.node, class_type=progress.class_type, step=step)
