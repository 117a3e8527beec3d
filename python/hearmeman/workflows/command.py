"""`hearmeman workflows list | run`: what there is, and one workflow run in ComfyUI with its progress shown."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hearmeman.errors import HearmemanError, UsageError
from hearmeman.image import WORKFLOWS_DIR
from hearmeman.log import log
from hearmeman.terminal import Bar, bars
from hearmeman.workflows import library

if TYPE_CHECKING:
    from hearmeman.workflows.client import Progress, Ran, Report

DEFAULT_DIR = str(WORKFLOWS_DIR)


class SaveError(HearmemanError):
    """An output could not be written to the folder given with --save."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    which = parser.add_subparsers(dest="action", required=True)
    lister = which.add_parser("list", help="tell which workflows there are and what can be set")
    runner = which.add_parser("run", help="run one workflow and wait for its outputs")
    for one in (lister, runner):
        one.add_argument("--dir", default=DEFAULT_DIR, metavar="DIR", help="folder of the workflows (%(default)s)")
        one.add_argument("--json", action="store_true", help="print JSON on standard output")
    runner.add_argument("name", help="name of the workflow")
    runner.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="set an input")
    runner.add_argument("--url", default="", help="ComfyUI's address (http://127.0.0.1:COMFYUI_PORT, usually 8188)")
    runner.add_argument("--save", default="", metavar="DIR", help="download the outputs into this folder")
    runner.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="seconds to wait (%(default)g)")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Do what was asked; returns the exit code.

    Raises:
        HearmemanError: one of its leaves, with what happened and what to do.
    """
    workflows = library.load(Path(args.dir))
    if args.action == "list":
        print(json.dumps([_entry(w) for w in workflows.values()], indent=2) if args.json else _listing(workflows))
        return 0
    if not args.timeout > 0:
        raise UsageError(f"--timeout {args.timeout:g}: it takes a number of seconds above 0")
    url = args.url or environ.get("COMFYUI_URL") or f"http://127.0.0.1:{environ.get('COMFYUI_PORT') or 8188}"
    if not _is_address(url):
        raise UsageError(f"--url {url}: it takes an address like http://127.0.0.1:8188")
    workflow = library.find(workflows, args.name)
    graph = library.apply(workflow, library.graph(workflow), args.settings)
    from hearmeman.workflows import client

    save = Path(args.save) if args.save else None
    log("workflow_started", name=workflow.name, url=url)
    try:
        with _progress() as report:
            ran = asyncio.run(client.run(url, graph, args.timeout, save, report))
    except OSError as error:
        message = f"cannot write to the folder given with --save, {error.filename or args.save}: {error.strerror}"
        raise SaveError(message) from error
    log("workflow_finished", name=workflow.name, seconds=round(ran.seconds, 3), files=len(ran.result.outputs))
    if ran.result.from_cache:
        meaning = "ComfyUI had run the same workflow before and wrote no new file; change an input for a new one"
        log("workflow_unchanged", name=workflow.name, meaning=meaning)
    _print(ran, args.json)
    return 0


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _entry(workflow: library.Workflow) -> dict[str, object]:
    models, inputs = list(workflow.models), list(workflow.inputs)
    return {"name": workflow.name, "title": workflow.title, "models": models, "inputs": inputs}


def _listing(workflows: Mapping[str, library.Workflow]) -> str:
    lines = []
    for workflow in workflows.values():
        lines.append(f"{workflow.name}  {workflow.title}")
        lines.append(f"    models: {', '.join(workflow.models) or 'none'}")
        lines.append(f"    --set:  {', '.join(workflow.inputs) or 'nothing'}")
    return "\n".join(lines)


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
