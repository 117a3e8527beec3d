"""The `hearmeman-pod` command: its verbs, their options and exit codes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hearmeman import slips
from hearmeman.errors import HearmemanError
from hearmeman_pod import cost, endpoint, files, making, options, run, template, verbs, volume
from hearmeman_pod.errors import PodError
from hearmeman_pod.formats import FORMATS
from hearmeman_pod.ready import PROXY
from hearmeman_pod.world import World

ROOT = Path(__file__).resolve().parents[2]
_CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage (nothing was sent), 3 some rows failed, 4 no GPU is free. "
    "The API key is RUNPOD_API_KEY, or what `runpodctl config` wrote."
)


def parser() -> argparse.ArgumentParser:
    """Make the parser."""
    top = slips.Parser(
        prog="hearmeman-pod",
        description="Creates and manages pods on RunPod from an image's digest.",
        epilog=_CODES,
        allow_abbrev=False,
    )
    actions = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, help: str, example: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=help, description=help, epilog=f"Example: {example}", allow_abbrev=False)
        if name not in ("volume", "endpoint"):  # Their actions have it.
            sub.add_argument("--json", action="store_true", help="one JSON object on standard output")
        return sub

    for name, help, example in (
        ("plan", "show what would be created, and what it costs", "hearmeman-pod plan --set WAN_480P=true"),
        (
            "create",
            "create a pod and wait until it is ready",
            "hearmeman-pod create --set WAN_480P=true --secret ACCESS_TOKEN --max-price 0.80",
        ),
    ):
        sub = verb(name, help, example)
        _wishes(sub)
        sub.add_argument(
            "--workflow",
            dest="workflows",
            action="append",
            default=[],
            metavar="NAME",
            help="with the models that this workflow needs",
        )
        if name == "plan":
            sub.add_argument("--as", dest="form", choices=sorted(FORMATS), help="print it for another tool")
        else:
            sub.add_argument("--no-wait", action="store_true", help="do not wait until the pod is ready")
            sub.add_argument(
                "--minutes", type=options.positive, default=30.0, metavar="M", help="how long to wait for it (30)"
            )
            sub.add_argument(
                "--keep", action="store_true", help="keep a pod that does not become ready, to find out why"
            )
    for name, help, example in (
        (
            "run",
            "make a pod, run one workflow in it, save its files here, end the pod",
            "hearmeman-pod run z-image-turbo --set prompt='a red fox' --out pictures --max-price 0.80",
        ),
        (
            "batch",
            "the same for every row of a file, on one pod; --resume continues an earlier one",
            "hearmeman-pod batch z-image-turbo prompts.csv --out pictures --max-price 0.80",
        ),
    ):
        sub = verb(name, help, example)
        run.add_arguments(sub, many=name == "batch")
        _wishes(sub, "--variable")
    verb("list", "the account's pods", "hearmeman-pod list")
    for name, help in (
        ("status", "one pod: its state, price, ports, and what it says of itself"),
        ("ssh", "log in to a pod"),
        ("open", "open ComfyUI in the browser"),
        ("start", "start a stopped pod again"),
        ("stop", "stop a pod; its volume stays and is paid for"),
        ("terminate", "end a pod for good; its own volume is deleted"),
        ("logs", "show what a pod prints"),
    ):
        sub = verb(name, help, f"hearmeman-pod {name} 7h9k2m4n6p")
        sub.add_argument("pod", help="the pod's id or name")
        if name in ("start", "stop"):
            sub.add_argument("--force", action="store_true", help=_FORCE[name])
        if name == "terminate":
            sub.add_argument("--yes", action="store_true", help="do not ask")
        if name == "logs":
            sub.add_argument("-f", "--follow", action="store_true", help="keep following until Ctrl-C")
            sub.add_argument("--tail", type=options.whole, default=100, metavar="N", help="past lines to show (100)")
            sub.add_argument("--source", choices=("container", "system"), help="only the pod's or only RunPod's lines")
        if name == "open":
            sub.add_argument("--print", dest="only_print", action="store_true", help="print the address only")
        if name == "ssh":
            files.add_key(sub)
            sub.add_argument("command", nargs="*", help="a command to run there; before one with options: --")
    for name, help, example in (
        ("put", "send pictures, voices and LoRAs to a running pod", "hearmeman-pod put picture.png film:input"),
        ("get", "copy files from a running pod", "hearmeman-pod get film:output pictures"),
        (
            "sync",
            "copy what is new or different, in either direction",
            "hearmeman-pod sync film:output pictures --watch 10",
        ),
    ):
        files.add(verb(name, help, example), name)
    sub = verb("cost", "what pods and volumes have cost", "hearmeman-pod cost --days 7")
    sub.add_argument("--days", type=options.days, default=30, metavar="N", help="how many days back (30)")
    sub = verb(
        "template",
        "create or update a RunPod template, for deploying with a click",
        "hearmeman-pod template --name mine",
    )
    _wishes(sub)
    sub.add_argument("--public", action="store_true", help="make it public")
    sub.add_argument("--readme", metavar="FILE", help="write a README to paste into the console; - prints it")
    volume.add(
        verb(
            "volume",
            "network volumes, filled before a GPU is paid for",
            "hearmeman-pod volume fill ID --set WAN_480P=true",
        )
    )
    endpoint.add(
        verb("endpoint", "Serverless: workers that RunPod starts when there are jobs", _ENDPOINT),
        lambda sub: _wishes(sub, pods=False),
    )
    return top


_ENDPOINT = "hearmeman-pod endpoint create --name films --network-volume ID --set WAN_480P=true"
_FORCE = {
    "start": "start it even if its host's CUDA is older than the image needs",
    "stop": "stop it though ComfyUI or a voice is at work",
}


def _wishes(sub: argparse.ArgumentParser, variable: str = "--set", pods: bool = True) -> None:
    """Add what a plan is made of; without `pods` what a worker has too."""
    what = "pod" if pods else "endpoint"
    sub.add_argument("--tier", default="consumer", help="which image of images.lock.json (consumer)")
    sub.add_argument("--image", metavar="REPOSITORY@sha256:…", help="an image of your own, by digest")
    sub.add_argument("--name", help=f"the {what}'s name (hearmeman-HHMM)")
    sub.add_argument(
        variable,
        dest="set",
        action="append",
        default=[],
        metavar="VARIABLE=VALUE",
        help=f"a variable of the {what}; can be given several times, as --secret",
    )
    sub.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="VARIABLE[=NAME]",
        help="a variable whose value is a RunPod secret",
    )
    sub.add_argument(
        "--recommended",
        action="store_true",
        help="with what the image's tier recommends"
        + ("; plan, create and template do so where you choose no model" if pods else ""),
    )
    sub.add_argument("--gpu-count", type=options.count, default=1, metavar="N", help="GPUs in each (1)")
    sub.add_argument("--datacenter", default="", type=str.upper, metavar="DC", help="a data centre, such as US-KS-2")
    sub.add_argument("--disk", type=options.whole, default=0, metavar="GB", help="container disk (20)")
    sub.add_argument(
        "--network-volume",
        default="",
        metavar="VOLUME",
        help="a network volume, by id or name" + (", in place of the pod's own" if pods else ""),
    )
    sub.add_argument("--registry", default="", metavar="ID", help="RunPod's credentials for a private registry")
    if not pods:
        sub.set_defaults(gpu=[], cloud="secure", volume=None, max_price=None)
        return
    sub.add_argument(
        "--gpu",
        action="append",
        default=[],
        metavar="NAME",
        help="an acceptable GPU, best first; can be given several times; otherwise by memory and price",
    )
    sub.add_argument(
        "--cloud", type=str.lower, choices=("secure", "community"), default="secure", help="RunPod's cloud (secure)"
    )
    sub.add_argument(
        "--volume", type=options.whole, metavar="GB", help="the pod's own volume; 0 for none (computed from the models)"
    )
    sub.add_argument("--max-price", type=options.positive, metavar="DOLLARS", help="the most the pod may cost an hour")


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one verb; its exit code, an error's, 130 after Ctrl-C, 141 after a closed pipe."""
    args = parser().parse_args(argv)
    environ = dict(os.environ if environ is None else environ)
    try:
        code = _VERBS[args.verb](args, _world(environ))
        sys.stdout.flush()
        return code
    except (PodError, HearmemanError) as error:
        print(f"hearmeman-pod: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; `hearmeman-pod list` shows what is running", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


_VERBS: dict[str, Callable[[argparse.Namespace, World], int]] = {
    "plan": making.plan,
    "create": making.create,
    "run": run.run,
    "batch": run.run,
    "list": verbs.list_pods,
    "status": verbs.status,
    "logs": verbs.logs,
    "ssh": verbs.ssh,
    "open": verbs.open_page,
    "start": verbs.start,
    "stop": verbs.stop,
    "terminate": verbs.terminate,
    "put": files.put,
    "get": files.get,
    "sync": files.sync,
    "cost": cost.cost,
    "template": template.template,
    "volume": volume.run,
    "endpoint": endpoint.run,
}


def _world(environ: Mapping[str, str]) -> World:
    return World(
        environ=environ,
        home=Path(environ.get("HOME") or Path.home()),
        root=Path(environ.get("HEARMEMAN_ROOT") or ROOT),
        proxy=environ.get("HEARMEMAN_PROXY") or PROXY,
        time=time.time,
    )
