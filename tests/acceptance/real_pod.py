"""One real pod from create to end, for a person with a RunPod account: asks first, costs less than a dollar, prints figures.

`make real-pod`. It needs what docs/runpod.md says; the pod is ended after every failure and after Ctrl-C, and ends by itself
where this machine cannot do it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from hearmeman.settings import load
from hearmeman.sync.client import Requests, make_client
from hearmeman_pod.errors import UsageError
from hearmeman_pod.key import find_key
from hearmeman_pod.say import agreed, say
from support.repository import ROOT

LONGEST_MINUTES = 60
"""What the pod may live, kept by the pod itself."""
IDLE_MINUTES = 6.0
"""A pod warns five minutes before it stops."""
DEAREST = 1.0
"""Dollars; nothing is created that could cost more."""
_NEEDED = ("ACCESS_TOKEN", "R2_ENDPOINT", "R2_BUCKET", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")
_LAST_TRIES = 5


class StepError(Exception):
    """A step did not show what it should."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    """Standard output."""
    err: str = ""
    """Standard error, where it was not shown at once."""


@dataclass
class Trip:
    """One pod, and what the steps know of it."""

    run: Callable[..., Done]
    """Runs `python -m` with the words that it is given."""
    environ: Mapping[str, str]
    name: str
    folder: Path
    """For files of this trip."""
    max_price: float = 0.8
    """Dollars an hour."""
    wishes: tuple[str, ...] = ()
    """Further options for `plan` and `create`."""
    ssh: tuple[str, ...] = ()
    """Options for ssh, -i or -F."""
    pause: float = 10.0
    """Seconds between two looks."""
    patience: float = 240.0
    """Seconds that something may take beyond what it should."""
    pod: dict[str, Any] = field(default_factory=dict)
    """What `create --json` said."""
    picture: Path | None = None
    """What the workflow made."""

    def pod_verb(self, *words: str) -> str:
        """Run a verb of `hearmeman-pod`; what it printed.

        Raises:
            StepError: its exit code is not 0.
        """
        done = self.run("hearmeman_pod", *words)
        if done.code:
            raise StepError(f"`hearmeman-pod {words[0]}` ended with {done.code}. {done.err}".rstrip())
        return done.out

    def mine(self) -> list[dict[str, Any]]:
        """The account's pods that have this trip's name."""
        return [pod for pod in json.loads(self.pod_verb("list", "--json")) if pod["name"] == self.name]

    def wait(self, what: str, true: Callable[[], bool], seconds: float) -> None:
        """Look until it is so.

        Raises:
            StepError: it was not within `seconds`.
        """
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                raise StepError(f"{what}: not within {seconds:.0f} s")
            time.sleep(self.pause)


Step = tuple[str, Callable[[Trip], str]]
"""What is tried, and what does it; that gives a figure or a word on what was seen."""
Row = tuple[str, float, str]
"""What was tried, its seconds, what was seen."""


def options(trip: Trip) -> list[str]:
    """The pod that is asked for: no models, outputs to the bucket, and both ways to end itself."""
    wanted = {"MODELS": "", "ENABLE_CONTROLNET": "false", "ENABLE_R2_SYNC": "true", "IDLE_ACTION": "stop"}
    wanted |= {"IDLE_STOP_MINUTES": f"{IDLE_MINUTES:g}", "MAX_MINUTES": str(LONGEST_MINUTES)}
    wanted |= {name: trip.environ[name] for name in ("R2_ENDPOINT", "R2_BUCKET")}
    words = ["--name", trip.name, "--secret", "ACCESS_TOKEN", "--max-price", f"{trip.max_price:g}", *trip.wishes]
    return words + [word for name, value in wanted.items() for word in ("--set", f"{name}={value}")]


def create(trip: Trip) -> str:
    """One create by digest, until the pod says that it is ready."""
    trip.pod = json.loads(trip.pod_verb("create", *options(trip), "--minutes", "20", "--json"))
    if "@sha256:" not in trip.pod["image"]:
        raise StepError(f"the pod runs {trip.pod['image']}, which is no digest")
    gpu = trip.pod["gpu"] or {}
    return f"{gpu.get('id')} in {trip.pod['data_center']}, CUDA {trip.pod['cuda']}, ${trip.pod['cost_per_hour']:.2f} an hour"


def gate(trip: Trip) -> str:
    """ComfyUI and the pod's page want the token."""
    bearer = {"Authorization": f"Bearer {trip.environ['ACCESS_TOKEN']}"}
    for port, path in (("8188", "queue"), ("19123", "status")):
        url = trip.pod["urls"][port] + path
        codes = [httpx2.get(url, headers=headers, timeout=30.0).status_code for headers in ({}, bearer)]
        if codes != [401, 200]:
            raise StepError(f"port {port} answers {codes[0]} without the token and {codes[1]} with it, not 401 and 200")
    return "401 without the token and 200 with it, on 8188 and 19123"


def workflow(trip: Trip) -> str:
    """A workflow without models, through the gate."""
    out = trip.folder / "made"
    words = ["workflows", "run", "smoke-image", "--dir", str(ROOT / "workflows"), "--url", trip.pod["urls"]["8188"]]
    # A color of its own, so that no other trip's object is this one's.
    words += ["--set", f"prefix={trip.name}/image", "--set", f"color={secrets.randbelow(1 << 24)}", "--out", str(out)]
    done = trip.run("hearmeman", *words, "--timeout", "300")
    found = [path for path in out.rglob("*") if path.suffix == ".png"]
    if done.code or len(found) != 1:
        raise StepError(f"the workflow ended with {done.code} and left {len(found)} pictures. {done.err}".rstrip())
    trip.picture = found[0]
    return "smoke-image, its picture brought here"


def bucket(trip: Trip) -> str:
    """The picture lies in the bucket, byte by byte."""
    assert trip.picture is not None
    content = trip.picture.read_bytes()
    settings = load({name: trip.environ[name] for name in _NEEDED if name.startswith("R2_")})
    client = make_client(settings, 2, Requests(), attempts=4)

    def arrived() -> bool:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=settings.r2_bucket):
            for key in (one["Key"] for one in page.get("Contents", []) if one["Size"] == len(content)):
                if trip.name in key and key.endswith(".png"):
                    body = client.get_object(Bucket=settings.r2_bucket, Key=key)["Body"].read()
                    return hashlib.sha256(body).digest() == hashlib.sha256(content).digest()
        return False

    with contextlib.closing(client):
        trip.wait("the picture is in the bucket", arrived, trip.patience)
    return "equal to the one that was brought here"


def shell(trip: Trip) -> str:
    """A command by SSH on the pod's own port."""
    said = trip.pod_verb("ssh", *trip.ssh, trip.name, "--", "id", "-un").split()
    if said[-1:] != ["root"]:
        raise StepError(f"`id -un` by SSH said {' '.join(said) or 'nothing'}, not root")
    return "a command by SSH"


def put_and_get(trip: Trip) -> str:
    """A file goes in and comes home the same."""
    file, home = trip.folder / f"{trip.name}.bin", trip.folder / "home"
    file.write_bytes(os.urandom(8 << 20))
    trip.pod_verb("put", *trip.ssh, str(file), f"{trip.name}:input")
    trip.pod_verb("get", *trip.ssh, f"{trip.name}:input/{file.name}", str(home))
    if (home / file.name).read_bytes() != file.read_bytes():
        raise StepError("the file that came home is another one")
    return "8 MiB there and back"


def idle_stop(trip: Trip) -> str:
    """Nobody uses it, and it stops itself."""
    seconds = IDLE_MINUTES * 60 + trip.patience
    trip.wait(
        f"the pod stops itself after {IDLE_MINUTES:g} idle minutes",
        lambda: [pod["status"] for pod in trip.mine()] == ["EXITED"],
        seconds,
    )
    return f"IDLE_STOP_MINUTES={IDLE_MINUTES:g}, IDLE_ACTION=stop"


def terminate(trip: Trip) -> str:
    """The pod is gone."""
    trip.pod_verb("terminate", trip.name, "--yes")
    trip.wait("the pod is gone from the list", lambda: not trip.mine(), trip.patience)
    return "gone from the list"


STEPS: tuple[Step, ...] = (
    ("create by digest, until ready", create),
    ("gate", gate),
    ("workflow", workflow),
    ("object in the bucket", bucket),
    ("SSH", shell),
    ("put and get", put_and_get),
    ("idle stop", idle_stop),
    ("terminate", terminate),
)


def travel(trip: Trip, rows: list[Row], steps: Sequence[Step] = STEPS) -> None:
    """Take the steps in turn and note each in `rows`; whatever happens, no pod of this trip is left.

    Raises:
        StepError: a step failed, or the pod may still run, which the message shouts.
    """
    try:
        for what, do in steps:
            say(f"== {what}")
            began = time.monotonic()
            seen = do(trip)
            rows.append((what, time.monotonic() - began, seen))
    finally:
        with _undisturbed():
            end(trip)


def end(trip: Trip) -> None:
    """End what has this trip's name, and look that it is gone.

    Raises:
        StepError: it may still run.
    """
    last = ""
    for number in range(_LAST_TRIES):
        if number > 1:
            time.sleep(trip.pause)
        try:
            found = trip.mine()
            if not found:
                say(f"no pod named {trip.name} is left")
                return
            for pod in found:
                trip.pod_verb("terminate", pod["id"], "--yes")
        except StepError as error:
            last = str(error)
    raise StepError(
        f"A POD NAMED {trip.name} MAY STILL RUN AND COST MONEY: {last}\n"
        f"End it in RunPod's console, or with: hearmeman-pod terminate {trip.name}. By itself it stops after "
        f"{LONGEST_MINUTES} minutes"
    )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold signals off while the pod is ended. A function does nothing: what is ignored, children would ignore too."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *unused: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def processes(environ: Mapping[str, str]) -> Callable[..., Done]:
    """Commands as processes of this Python; a signal here is Ctrl-C there, and what they do then is waited for."""

    def run(*words: str) -> Done:
        # A session of its own: Ctrl-C reaches it once, from here.
        child = subprocess.Popen(
            [sys.executable, "-m", *words],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, _ = child.communicate()
        except KeyboardInterrupt:
            with _undisturbed():
                child.send_signal(signal.SIGINT)
                child.wait()
            raise
        return Done(child.returncode, out)

    return run


def asked(trip: Trip, yes: bool) -> bool:
    """Say what it will spend, and ask.

    Raises:
        UsageError: something is missing here, or it might cost more than a dollar.
    """
    if not find_key(trip.environ, Path.home()):
        raise UsageError("there is no API key: set RUNPOD_API_KEY, or run `runpodctl config`")
    missing = [name for name in _NEEDED if not trip.environ.get(name)]
    if missing:
        raise UsageError(
            f"{', '.join(missing)} must be set here, and ACCESS_TOKEN and the bucket's two keys be secrets of your RunPod "
            "account too: docs/runpod.md, step 2"
        )
    price, most = trip.max_price, trip.max_price * LONGEST_MINUTES / 60
    if most >= DEAREST:
        raise UsageError(
            f"--max-price {price:g} for {LONGEST_MINUTES} minutes could cost ${most:.2f}: give less than 1"
        )
    plan = json.loads(trip.pod_verb("plan", *options(trip), "--json"))
    return agreed(
        f"This creates the pod {trip.name} from {plan['body']['image']}, at ${price:.2f} an hour or less, for about half an "
        f"hour: some ${price / 2:.2f}, and at most ${most:.2f}, since the pod stops itself after {LONGEST_MINUTES} minutes. "
        f"One small picture stays in the bucket {trip.environ['R2_BUCKET']}.",
        yes,
    )


def figures(rows: Sequence[Row], when: datetime.date) -> str:
    """The rows for docs/verification.md."""
    day = f"{when.day} {when:%B %Y}"
    return "\n".join(f"| on RunPod, {day}: {what} | {seconds:.1f} s; {seen} |" for what, seconds, seen in rows)


def main() -> int:
    """Ask, travel, print."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    words.add_argument("--tier", default="consumer", help="which image of images.lock.json (consumer)")
    words.add_argument("--image", help="an image by digest")
    words.add_argument("--gpu", action="append", default=[], help="an acceptable GPU")
    words.add_argument("--registry", default="", help="RunPod's credentials for a private registry")
    words.add_argument("--max-price", type=float, default=0.8, help="dollars an hour (0.8)")
    words.add_argument("-i", "--identity", help="the SSH key, if it is not ssh's own choice")
    words.add_argument("--yes", action="store_true", help="do not ask")
    args = words.parse_args()
    wishes = ["--tier", args.tier, "--volume", "20"]
    wishes += [word for gpu in args.gpu for word in ("--gpu", gpu)]
    wishes += ["--image", args.image] if args.image else []
    wishes += ["--registry", args.registry] if args.registry else []
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    rows: list[Row] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="real-pod-") as folder:
        name = f"real-pod-{secrets.token_hex(4)}"
        ssh = ("-i", args.identity) if args.identity else ()
        trip = Trip(processes(os.environ), os.environ, name, Path(folder), args.max_price, tuple(wishes), ssh)
        try:
            if not asked(trip, args.yes):
                return 1
            began = time.monotonic()
            travel(trip, rows)
        except UsageError as error:
            say(f"real-pod: {error}")
            return 2
        except StepError as error:
            say(f"real-pod: {error}")
            return 1
        except KeyboardInterrupt:
            say("real-pod: interrupted")
            return 130
        finally:
            if trip.pod:
                seconds = time.monotonic() - began
                say(f"{seconds:.0f} s from the create on, at most ${seconds / 3600 * trip.pod['cost_per_hour']:.2f}")
            if rows:
                print(figures(rows, datetime.date.today()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
