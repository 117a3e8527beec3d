"""`hearmeman-pod run | batch`: a pod for one workflow, its files brought here, and the pod ended, whatever happens on the way."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import secrets
import uuid
from collections.abc import Sequence
from pathlib import Path

from hearmeman.workflows import batch, library, run_command
from hearmeman.workflows.prepare import Files, picture_setting, prepared
from hearmeman_pod import create as creation
from hearmeman_pod import ready
from hearmeman_pod.api import Api
from hearmeman_pod.create import Pod
from hearmeman_pod.errors import UsageError
from hearmeman_pod.plan import Plan
from hearmeman_pod.planned import pair, planned, with_models
from hearmeman_pod.ready import Inside
from hearmeman_pod.say import note, say
from hearmeman_pod.signals import as_interrupt
from hearmeman_pod.world import COMFYUI_PORT, World

LARGEST_UPLOAD = 100 * 10**6
"""Bytes of a request that RunPod's proxy, which is Cloudflare's, lets through."""
IDLE_MINUTES = 30
"""A pod that nothing came to for so long was left behind by this command."""
SPARE_MINUTES = 10
"""What a pod may live beyond the longest that this command would wait."""


def add_arguments(sub: argparse.ArgumentParser, many: bool) -> None:
    """Add what `run` and `batch` take beside what every plan takes."""
    sub.add_argument("workflow", help="name of a workflow, or the path of a graph of your own (API format)")
    if many:
        sub.add_argument(
            "rows", type=Path, help="a .csv whose header names the inputs, or a .jsonl with one object per line"
        )
        sub.add_argument("--resume", action="store_true", help="continue the batch in DIR, on a new pod")
        sub.add_argument("--at-once", type=int, default=2, metavar="N", help="rows to queue in ComfyUI at a time (2)")
    sub.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an input of the workflow; a picture, a video or a sound by its path",
    )
    sub.add_argument("--picture", default="", metavar="FILE", help="the picture, where the workflow takes one")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder here for what it makes")
    sub.add_argument(
        "--minutes",
        type=float,
        default=30.0,
        metavar="M",
        help="how long the pod may take to be ready, in minutes (30)",
    )
    sub.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="seconds for the workflow (3600)")
    sub.add_argument(
        "--keep", action="store_true", help="keep the pod running afterwards; it costs money until you end it"
    )


def run(args: argparse.Namespace, world: World) -> int:
    """Make the pod, run the workflow in it, save its files, end the pod.

    Raises:
        PodError, HearmemanError: what went wrong; the pod is ended all the same, or the message shouts that it is not.
    """
    folder = world.root / "workflows"
    workflow = _workflow(args.workflow, folder)
    needs = _check(args, workflow, folder)
    api = world.api()
    made, token = _plan(args, world, api, needs)
    for text in made.notes:
        note(text)
    with as_interrupt():
        return _Run(args, world, api, Inside(token, world.proxy)).go(workflow, made, folder)


class _Run:
    """One pod from its create to its end."""

    def __init__(self, args: argparse.Namespace, world: World, api: Api, inside: Inside) -> None:
        self.args, self.world, self.api, self.inside = args, world, api, inside
        self.many = args.verb == "batch"
        self.order = uuid.uuid4().hex
        self.began = 0.0

    def go(self, workflow: library.Workflow, made: Plan, folder: Path) -> int:
        """Do it all; the exit code."""
        self.began = self.world.time()
        pod = creation.create(self.api, made, say, order=self.order)
        try:
            say(f"pod {pod['id']} is created, ${pod['cost']:.2f} an hour")
            pod = ready.wait(self.api, pod, self.inside, say, self.args.minutes * 60, self.args.max_price)
            code = self._work(pod, workflow, folder)
        except BaseException:
            self._end(pod, keep=False)
            raise
        self._end(pod, keep=self.args.keep)
        return code

    def _work(self, pod: Pod, workflow: library.Workflow, folder: Path) -> int:
        words = argparse.Namespace(
            settings=self.args.settings,
            image=self.args.picture,
            url=self.inside.url(pod["id"], COMFYUI_PORT),
            timeout=self.args.timeout,
            fetch=False,
            out=self.args.out,
            dir=folder,
            json=self.args.json,
            **({"rows": self.args.rows, "resume": self.args.resume, "at_once": self.args.at_once} if self.many else {}),
        )
        work = run_command.batch if self.many else run_command.run
        return work(workflow, words, {**_variables(self.args.set), "ACCESS_TOKEN": self.inside.token})

    def _end(self, pod: Pod, keep: bool) -> None:
        """End the pod, and say what it cost."""
        if keep:
            say(
                f"--keep: pod {pod['id']} keeps running and costs ${pod['cost']:.2f} an hour until it has been "
                "idle for "
                f"its IDLE_STOP_MINUTES; end it sooner: hearmeman-pod terminate {pod['id']}"
            )
        try:
            if not keep:
                creation.terminate(self.api, pod["id"], say)
            creation.sweep(self.api, self.order, pod["id"], say)
        except BaseException:
            which = "ANOTHER POD OF THIS COMMAND" if keep else f"POD {pod['id'].upper()}"
            say(
                f"{which} MAY STILL RUN AND COST MONEY: see `hearmeman-pod list`, and end it with "
                "`hearmeman-pod terminate ID`; by itself it ends at its MAX_MINUTES"
            )
            raise
        self._bill(pod, "kept" if keep else "terminated")

    def _bill(self, pod: Pod, state: str) -> None:
        seconds = self.world.time() - self.began
        dollars = seconds / 3600 * pod["cost"]
        if self.args.json:
            facts = {"event": "pod", "id": pod["id"], "state": state, "seconds": round(seconds, 1)}
            print(json.dumps({**facts, "dollars": round(dollars, 4)}), flush=True)
        else:
            say(f"{seconds:.0f} s from the create on, at most ${math.ceil(dollars * 100) / 100:.2f}")


def _workflow(name: str, folder: Path) -> library.Workflow:
    return library.own(Path(name)) if library.is_path(name) else library.find(library.load(folder), name)


def _check(args: argparse.Namespace, workflow: library.Workflow, folder: Path) -> tuple[str, ...]:
    """Find what is wrong with the order before it costs anything; the models that it needs.

    Raises:
        UsageError: an input or the folder cannot be used.
    """
    if not args.timeout > 0 or not args.minutes > 0:
        raise UsageError("--timeout and --minutes take numbers above 0")
    if args.keep and "ACCESS_TOKEN" not in _names(args.secret):
        raise UsageError(
            "--keep needs --secret ACCESS_TOKEN: otherwise the pod's token is made for this run, and nobody else has it"
        )
    settings = [*args.settings]
    if args.picture:
        settings.append(picture_setting(workflow, args.picture, folder))
    environ = _variables(args.set)

    def make(wanted: Sequence[str]) -> tuple[library.Graph, Files]:
        return prepared(workflow, wanted, folder, environ)

    if args.verb == "batch":
        rows = batch.prepare(batch.read_rows(args.rows), settings, make)
        orders = [(row.settings, row.files) for row in rows]
    else:
        orders = [(tuple(settings), make(settings)[1])]
    for path in {path for _, files in orders for path in files.values()}:
        if path.stat().st_size > LARGEST_UPLOAD:
            raise UsageError(f"{path} is over 100 MB, which RunPod's proxy does not let through: make it smaller")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {args.out}: {error.strerror}") from error
    chosen = (library.chosen(workflow, wanted, environ) for wanted, _ in orders)
    return tuple(dict.fromkeys(model for options in chosen for model in workflow.needs(options)))


def _plan(args: argparse.Namespace, world: World, api: Api, needs: Sequence[str]) -> tuple[Plan, str]:
    """The pod that has the models `needs`, and the token of its gate."""
    token = world.environ.get("ACCESS_TOKEN", "")
    own = "ACCESS_TOKEN" in _names(args.secret)
    if own and not token:
        raise UsageError("--secret ACCESS_TOKEN: put the secret's value into the variable ACCESS_TOKEN here as well")
    if not own:
        args.secret = [*args.secret, "ACCESS_TOKEN"]
        token = secrets.token_urlsafe(24)
    given = _variables(args.set)
    wanted = {
        "ENABLE_CONTROLNET": given.get("ENABLE_CONTROLNET", "false"),
        # Ready then means that the workflow can run.
        "WAIT_FOR_MODELS": "true",
        "IDLE_STOP_MINUTES": given.get("IDLE_STOP_MINUTES", str(IDLE_MINUTES)),
        "IDLE_ACTION": given.get("IDLE_ACTION", "terminate"),
    }
    if not args.keep:
        longest = math.ceil(args.minutes + args.timeout / 60) + SPARE_MINUTES
        wanted["MAX_MINUTES"] = given.get("MAX_MINUTES", str(longest))
    args.set = [f"{name}={value}" for name, value in {**with_models(given, needs), **wanted}.items()]
    made = planned(args, world, api, ends_itself=not args.keep)
    if not own:
        # Made for this pod, and of no use after it.
        made = dataclasses.replace(made, body={**made.body, "env": {**made.body["env"], "ACCESS_TOKEN": token}})
    return made, token


def _variables(pairs: Sequence[str]) -> dict[str, str]:
    return dict(pair(text, "--variable") for text in pairs)


def _names(pairs: Sequence[str]) -> set[str]:
    return {text.partition("=")[0] for text in pairs}
