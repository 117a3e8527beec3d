"""`hearmeman workflows run | batch`: finds ComfyUI, sends the work, and reports progress."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hearmeman.errors import HearmemanError, PartlyDoneError, UsageError
from hearmeman.log import log
from hearmeman.workflows import advice, library, schema
from hearmeman.workflows.answers import RefusedError, RunFailedError
from hearmeman.workflows.prepare import Files, picture_setting, prepared
from hearmeman.workflows.shown import Events, shown

_LOCAL = ("localhost", "127.0.0.1", "::1")


class SaveError(HearmemanError):
    """An output could not be written to the folder given with --out."""


class NotFetchedError(HearmemanError):
    """--fetch could not fetch the models."""


def add_arguments(runner: argparse.ArgumentParser, batcher: argparse.ArgumentParser) -> None:
    """Add the arguments of `run` and `batch`."""
    for one in (runner, batcher):
        one.add_argument(
            "--set",
            dest="settings",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="set an input; pictures, videos and sounds are given by path",
        )
        one.add_argument("--image", default="", metavar="FILE", help="the picture, where a workflow takes one")
        one.add_argument(
            "--url",
            default="",
            help="ComfyUI's address, such as https://POD-8188.proxy.runpod.net; a pod's token comes from the variable "
            "ACCESS_TOKEN (default: the ComfyUI of this machine)",
        )
        one.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="seconds to wait (%(default)g)")
        one.add_argument("--fetch", action="store_true", help="fetch missing models first")
    runner.add_argument("--out", type=Path, metavar="DIR", help="download the outputs into this folder")
    batcher.add_argument(
        "rows",
        type=Path,
        help="a .csv whose header names the inputs, a .jsonl with one object per line, or the .json of a story",
    )
    batcher.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files and the record")
    batcher.add_argument("--resume", action="store_true", help="continue the batch in DIR")
    batcher.add_argument(
        "--at-once", type=int, default=2, metavar="N", help="rows to queue in ComfyUI at a time (%(default)s)"
    )


def address(url: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """ComfyUI's address and the token for its gate; this machine's own needs none.

    Raises:
        UsageError: `url` is none, or the token would go over an open line.
    """
    if not url:
        return environ.get("COMFYUI_URL") or f"http://127.0.0.1:{environ.get('COMFYUI_PORT') or 8188}", ""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise UsageError(f"--url {url}: it takes an address like https://POD-8188.proxy.runpod.net")
    if parts.username or parts.password or parts.query:
        raise UsageError("--url: leave the token out of the address, and put it into the variable ACCESS_TOKEN")
    token = environ.get("ACCESS_TOKEN") or environ.get("COMFYUI_TOKEN") or ""
    if token and parts.scheme == "http" and not _is_local(parts.hostname or ""):
        raise UsageError(
            f"--url {url}: ACCESS_TOKEN would go there unencrypted: give an https address, or reach it through SSH "
            "(ssh -L 8188:127.0.0.1:8188 …)"
        )
    return url, token


def _is_local(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host in _LOCAL


def run(workflow: library.Workflow, args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run it once; returns the exit code.

    Raises:
        HearmemanError: one of its leaves, with what happened and what to do.
    """
    url, token = checked(workflow, args, environ)
    folder = Path(args.dir)
    graph, files = prepared(workflow, _settings(workflow, args), folder, environ)
    if args.fetch:
        fetch(workflow, args, environ)
    from hearmeman.workflows import once, ram
    from hearmeman.workflows.client import Client

    async def go() -> None:
        async with Client(url, token) as client:
            await ram.check_machine(client, workflow, not args.url)
            await once.run(client, graph, files, args.timeout, args.out, screen)

    log("workflow.started", name=workflow.name, url=url)
    with shown(args.json) as screen:
        try:
            with _explained(workflow, graph, folder, args, environ):
                asyncio.run(go())
        except HearmemanError as error:
            screen.failed(error)
            raise
        except KeyboardInterrupt:
            screen.stopped()
            raise
    return 0


def batch(workflow: library.Workflow, args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run it for every row; returns the exit code.

    Raises:
        HearmemanError: one of its leaves, with what happened and what to do.
    """
    from hearmeman.workflows import batch as rows_of
    from hearmeman.workflows import ram
    from hearmeman.workflows.client import Client

    url, token = checked(workflow, args, environ)
    if args.at_once < 1:
        raise UsageError(f"--at-once {args.at_once}: it takes a number above 0")

    def make(settings: list[str]) -> tuple[library.Graph, Files]:
        return prepared(workflow, settings, Path(args.dir), environ)

    rows = rows_of.prepare(rows_of.read_rows(args.rows), _settings(workflow, args), make)
    if args.fetch:
        fetch(workflow, args, environ)
    events = Events(sys.stdout) if args.json else None
    say = sayer(events, len(rows))

    def explain(row: int, error: HearmemanError) -> str:
        return with_advice(error, workflow, rows[row - 1].graph, Path(args.dir), args, environ)

    async def go() -> rows_of.Outcome:
        async with Client(url, token) as client:
            await ram.check_machine(client, workflow, not args.url)
            limits = rows_of.Limits(args.at_once, args.timeout, args.resume)
            return await rows_of.run(client, rows, args.out, limits, say, explain)

    outcome = asyncio.run(go())
    if events is not None:
        events.event("done", rows=len(rows), done=outcome.done, failed=outcome.failed)
    else:
        print(f"{outcome.done} of {len(rows)} rows are done; their files are in {args.out}")
    if outcome.failed:
        raise PartlyDoneError(
            f"{len(outcome.failed)} of {len(rows)} rows failed: "
            f"{', '.join(map(str, sorted(outcome.failed)))}; the same command with --resume tries them again"
        )
    return 0


_KEYS = {"failed": "why", "sent": "prompt_id"}


def sayer(events: Events | None, rows: int) -> Callable[[int, str, Any], None]:
    """Reports each row, as JSON or in the log."""

    def say(number: int, state: str, detail: Any) -> None:
        if events is not None:
            events.event("row", row=number, rows=rows, state=state, **{_KEYS.get(state, "files"): detail})
        else:
            text = detail if isinstance(detail, str) else ", ".join(detail)
            log("batch.moved", row=f"{number}/{rows}", state=state, what=text or None)

    return say


def checked(workflow: library.Workflow, args: argparse.Namespace, environ: Mapping[str, str]) -> tuple[str, str]:
    """ComfyUI's address and its gate's token.

    Raises:
        UsageError: arguments do not go together.
    """
    if not args.timeout > 0:
        raise UsageError(f"--timeout {args.timeout:g}: it takes a number of seconds above 0")
    if args.fetch and args.url:
        needs = " ".join(workflow.needs(library.chosen(workflow, args.settings, environ)))
        instead = (
            f"run `hearmeman models fetch {needs}` there, and this without --fetch" if needs else "leave out --fetch"
        )
        raise UsageError(f"--fetch fetches onto this machine, and --url names another: {instead}")
    return address(args.url, environ)


def _settings(workflow: library.Workflow, args: argparse.Namespace) -> list[str]:
    more = [picture_setting(workflow, args.image, Path(args.dir))] if args.image else []
    return [*args.settings, *more]


def fetch(workflow: library.Workflow, args: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Fetch a workflow's missing models, as `hearmeman models fetch` does: with its user and its lease.

    Raises:
        NotFetchedError: it could not; the fetch has said why.
    """
    needs = workflow.needs(library.chosen(workflow, args.settings, environ))
    missing = missing_models(needs, environ)
    if not missing:
        return
    log("workflow.fetching", models=" ".join(missing))
    # A separate process: it becomes the user that fetches models, and its JSON is not this command's.
    command = [sys.executable, "-P", "-m", "hearmeman", "models", "fetch", *missing]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
        raise NotFetchedError(f"{', '.join(missing)} could not be fetched, so nothing was sent: its messages are above")


def missing_models(needs: tuple[str, ...], environ: Mapping[str, str]) -> list[str]:
    """Models in `needs` that are not complete on the disk."""
    from hearmeman.models.context import make_context

    if not needs:
        return []
    made = make_context({**environ, "MODELS": "", "ENABLE_CONTROLNET": "false"}, needs).plan()
    absent = {model for step in made.having("fetch", "list") for model in step.models}
    return [name for name in needs if name in absent]


@contextlib.contextmanager
def _explained(
    workflow: library.Workflow,
    graph: library.Graph,
    folder: Path,
    args: argparse.Namespace,
    environ: Mapping[str, str],
) -> Iterator[None]:
    try:
        yield
    except (RefusedError, RunFailedError) as error:
        error.args = (with_advice(error, workflow, graph, folder, args, environ),)
        raise
    except OSError as error:
        message = f"cannot write to the folder given with --out, {error.filename or args.out}: {error.strerror}"
        raise SaveError(message) from error


def with_advice(
    error: HearmemanError,
    workflow: library.Workflow,
    graph: library.Graph,
    folder: Path,
    args: argparse.Namespace,
    environ: Mapping[str, str],
) -> str:
    """An error's message, with advice."""
    text = ""
    if isinstance(error, RunFailedError):
        text = advice.for_failure(error, workflow, graph)
    elif isinstance(error, RefusedError):
        missing: list[str] = []
        with contextlib.suppress(HearmemanError, OSError):
            if not args.url:
                missing = missing_models(workflow.needs(library.chosen(workflow, args.settings, environ)), environ)
        text = advice.for_refusal(error, schema.read(folder / schema.FILE), missing)
    return f"{error}. {text[0].upper()}{text[1:]}" if text else str(error)
