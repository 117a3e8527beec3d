"""What each verb of `hearmeman-pod` does: reads its options, calls the planner or RunPod, prints."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import uuid
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hearmeman.models import catalogue as catalogues
from hearmeman.workflows import library
from hearmeman_pod import create as creation
from hearmeman_pod import gpus, images, ready, schema, show
from hearmeman_pod.api import BASE, Api, pod_path
from hearmeman_pod.errors import ApiError, PodError, UsageError
from hearmeman_pod.formats import FORMATS
from hearmeman_pod.key import find_key
from hearmeman_pod.logs import follow
from hearmeman_pod.plan import Plan, Volume, Wishes, make_plan
from hearmeman_pod.ready import Inside, NotReadyError, TooDearError
from hearmeman_pod.say import say

COMFYUI_PORT = 8188


@dataclass(frozen=True)
class World:
    """What the verbs know of this machine."""

    environ: Mapping[str, str]
    home: Path
    """Where runpodctl keeps its file."""
    root: Path
    """The checkout, which holds images.lock.json."""
    proxy: str
    """Address of a pod's port, with {id} and {port}."""
    time: Callable[[], float]
    """Unix seconds."""

    def api(self) -> Api:
        """The API with the account's key."""
        return Api(find_key(self.environ, self.home), self.environ.get("RUNPOD_API_URL") or BASE)

    @property
    def inside(self) -> Inside:
        """How pods themselves are asked."""
        return Inside(self.environ.get("ACCESS_TOKEN", ""), self.proxy)


def plan(args: argparse.Namespace, world: World) -> int:
    """Show what would be created."""
    has_key = bool(find_key(world.environ, world.home))
    made = planned(args, world, world.api() if has_key else None)
    if args.form:
        print(FORMATS[args.form](made.body))
    elif args.json:
        print(json.dumps(show.plan_facts(made), indent=1))
    else:
        print("\n".join(show.plan_lines(made, has_key)))
    return 0


def create(args: argparse.Namespace, world: World) -> int:
    """Create a pod and wait until it is ready; nothing is left running that was not asked for."""
    api = world.api()
    made = planned(args, world, api)
    for note in made.notes:
        say(f"note: {note}")
    order = uuid.uuid4().hex
    pod = creation.create(api, made, say, order=order)
    say(f"pod {pod['id']} is created, ${pod['cost']:.2f} an hour")
    try:
        if not args.no_wait:
            pod = ready.wait(api, pod, world.inside, say, args.minutes * 60, args.max_price)
        elif args.max_price is not None and pod["cost"] > args.max_price:
            raise TooDearError(
                f"pod {pod['id']} costs ${pod['cost']:.3f} an hour, more than --max-price {args.max_price:g}"
            )
    except (TooDearError, NotReadyError):
        if args.keep:
            say(f"--keep: pod {pod['id']} goes on and costs ${pod['cost']:.2f} an hour")
        else:
            creation.terminate(api, pod["id"], say)
        creation.sweep(api, order, pod["id"], say)
        raise
    except BaseException:
        say(
            f"pod {pod['id']} goes on and costs ${pod['cost']:.2f} an hour; end it: hearmeman-pod terminate {pod['id']}"
        )
        raise
    creation.sweep(api, order, pod["id"], say)
    if args.json:
        print(json.dumps(show.pod_facts(pod, world.inside), indent=1))
    else:
        print("\n".join(show.pod_lines(pod, world.inside, world.time())))
    return 0


def list_pods(args: argparse.Namespace, world: World) -> int:
    """Show the account's pods and what they cost an hour together."""
    found = creation.pods(world.api())
    if args.json:
        print(json.dumps([show.pod_facts(pod, world.inside) for pod in found], indent=1))
    else:
        print("\n".join(show.list_lines(found, world.time())))
    return 0


def status(args: argparse.Namespace, world: World) -> int:
    """Show one pod, and what it says of itself."""
    pod = _pod(world.api(), args.pod)
    own = world.inside.get(pod["id"], ready.STATUS_PORT, "/status")[1] if pod["status"] == "RUNNING" else None
    if args.json:
        print(json.dumps({**show.pod_facts(pod, world.inside), "pod_status": own}, indent=1))
    else:
        print("\n".join(show.pod_lines(pod, world.inside, world.time(), own)))
    return 0


def logs(args: argparse.Namespace, world: World) -> int:
    """Print a pod's log."""
    api = world.api()
    pod = _pod(api, args.pod)
    silence = 60.0 if args.follow else 5.0
    try:
        for when, source, line in follow(
            api, pod["id"], args.tail, args.source or "", forever=args.follow, silence=silence
        ):
            text = (
                json.dumps({"ts": when, "source": source, "line": line}) if args.json else f"{when} {source:9} {line}"
            )
            print(text, flush=args.follow)
    except ApiError:
        raise
    except PodError:
        # RunPod keeps the stream open: silence is the end of what there is to read.
        if args.follow:
            raise
    return 0


def ssh(args: argparse.Namespace, world: World) -> int:
    """Log in by SSH: directly where the pod has a public port, otherwise by RunPod's proxy."""
    pod = _pod(world.api(), args.pod)
    direct, proxy = pod["ssh"]["direct"], pod["ssh"]["proxy"]
    way = direct or proxy
    if way is None:
        raise PodError(f"pod {pod['id']} is {pod['status']} and has no SSH address yet: wait until it runs")
    if args.command and direct is None:
        raise PodError("RunPod's SSH proxy has no commands, only a shell: the pod needs 22/tcp and a public address")
    words = ["ssh", "-p", str(way["port"]), f"{way['username']}@{way['host']}", *args.command]
    if args.json:
        print(json.dumps({"argv": words}))
        return 0
    return subprocess.run(words).returncode


def open_page(args: argparse.Namespace, world: World) -> int:
    """Open ComfyUI in the browser."""
    pod = _pod(world.api(), args.pod)
    url = world.inside.url(pod["id"], COMFYUI_PORT, "/")
    print(json.dumps({"url": url}) if args.json else url)
    if not (args.only_print or args.json):
        webbrowser.open(url)
    return 0


def start(args: argparse.Namespace, world: World) -> int:
    """Start a stopped pod, after a look at its host's CUDA version: a resumed pod stays on its host."""
    api = world.api()
    pod = _pod(api, args.pod)
    _allowed(pod, "start")
    floor = (pod.get("gpu") or {}).get("minCudaVersion") or _floor(world)
    has = pod.get("cudaVersion")
    if has and floor and _version(has) < _version(floor) and not args.force:
        raise PodError(
            f"pod {pod['id']} is bound to a host with CUDA {has}, and the image needs {floor}: ComfyUI would fail at its "
            "first use of the GPU. Create a new pod, or give --force"
        )
    return _act(api, pod, "start", args)


def stop(args: argparse.Namespace, world: World) -> int:
    """Stop a pod, unless ComfyUI is at work."""
    api = world.api()
    pod = _pod(api, args.pod)
    _allowed(pod, "stop")
    if pod["status"] == "RUNNING" and not args.force:
        code, queue = world.inside.get(pod["id"], COMFYUI_PORT, "/queue")
        if code in (401, 403):
            raise PodError(
                "ComfyUI's queue cannot be seen: set ACCESS_TOKEN here too, or give --force to stop it anyway"
            )
        jobs = (
            sum(len(queue.get(key, [])) for key in ("queue_running", "queue_pending")) if isinstance(queue, dict) else 0
        )
        if jobs:
            raise PodError(
                f"ComfyUI has {jobs} job{'s' if jobs > 1 else ''} to do: wait, or give --force to stop it anyway"
            )
    return _act(api, pod, "stop", args)


def terminate(args: argparse.Namespace, world: World) -> int:
    """End a pod for good, after a question."""
    api = world.api()
    pod = _pod(api, args.pod)
    if not args.yes:
        if not sys.stdin.isatty():
            raise UsageError("terminate deletes the pod's own volume: give --yes")
        answer = input(f"End pod {pod['id']} ({pod['name']}) and delete its own volume? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing was done")
            return 1
    creation.terminate(api, pod["id"], say)
    if args.json:
        print(json.dumps({"id": pod["id"], "status": "TERMINATED"}))
    return 0


def cost(args: argparse.Namespace, world: World) -> int:
    """Show what pods and network volumes have cost, and what goes on costing."""
    api = world.api()
    parameters = {"bucketSize": "day", "lastN": str(args.days)}
    records = api.get("/v2/billing/pods", "read the bill of pods", **parameters)["records"]
    volumes = api.get("/v2/billing/network-volumes", "read the bill of volumes", **parameters)["records"]
    facts = show.cost_facts(records, volumes, creation.pods(api), args.days)
    print(json.dumps(facts, indent=1) if args.json else "\n".join(show.cost_lines(facts)))
    return 0


def template(args: argparse.Namespace, world: World) -> int:
    """Create the template, or update the one of this name."""
    api = world.api()
    made = planned(args, world, api)
    kept = ("name", "image", "disk", "ports", "env", "startSsh", "registry")
    body: dict[str, Any] = {key: made.body[key] for key in kept if key in made.body}
    body |= {"public": args.public, "startJupyter": False}
    if "persistent" in made.body.get("mounts", {}):
        body["mounts"] = made.body["mounts"]
    schema.check("CreateTemplateRequest", body)
    known = api.get("/v2/templates", "list the templates")["templates"]
    mine = next((item for item in known if item["name"] == body["name"]), None)
    if mine:
        found = api.change("PATCH", f"/v2/templates/{mine['id']}", "update the template", body)
    else:
        found = api.change("POST", "/v2/templates", "create the template", body)
    words = "updated" if mine else "created"
    print(json.dumps(found, indent=1) if args.json else f"template {found['name']} ({found['id']}) is {words}")
    return 0


def planned(args: argparse.Namespace, world: World, api: Api | None, ends_itself: bool = False) -> Plan:
    """Plan the pod that the options describe; without `api` nothing of RunPod is known."""
    floor = _floor(world)
    lock = world.root / "images.lock.json"
    image = images.from_reference(args.image, floor) if args.image else images.from_lock(lock, args.tier)
    if not image.cuda_floor:
        # Recorded before the record held it: this checkout builds with the same floor or a higher one.
        image = replace(image, cuda_floor=floor)
    cloud = args.cloud.upper()
    if api is None:
        known = gpus.from_names()
        if args.network_volume:
            raise UsageError("--network-volume needs the API key: where the volume is must be looked up")
    else:
        filters = {"include": "AVAILABILITY", "product": "POD", "cloud": cloud, "count": str(args.gpu_count)}
        if image.cuda_floor:
            filters["minCudaVersion"] = image.cuda_floor
        known = gpus.from_catalogue(api.get("/v2/catalog/gpus", "list the GPUs", **filters)["gpus"], cloud)
    wishes = Wishes(
        name=args.name or time.strftime("hearmeman-%H%M", time.localtime(world.time())),
        variables=with_models(dict(pair(text, "--set") for text in args.set), _needs(args, world)),
        secrets=dict(pair(text, "--secret", optional=True) for text in args.secret),
        gpus=tuple(args.gpu),
        gpu_count=args.gpu_count,
        cloud=cloud,
        data_center=args.datacenter,
        disk_gb=args.disk,
        volume_gb=args.volume,
        network_volume=volume(api, args.network_volume) if api and args.network_volume else None,
        max_price=args.max_price,
        registry=args.registry,
        ends_itself=ends_itself,
    )
    # The catalogue of the checkout that this runs from.
    path = Path(catalogues.__file__).with_name("catalogue.toml")
    return make_plan(wishes, image, catalogues.read(path), known)


def _needs(args: argparse.Namespace, world: World) -> tuple[str, ...]:
    """Models of the workflows that were named with --workflow."""
    names: list[str] = getattr(args, "workflows", [])
    if not names:
        return ()
    known, given = library.load(world.root / "workflows"), dict(pair(text, "--set") for text in args.set)
    found = [library.find(known, name) for name in names]
    return tuple(model for one in found for model in one.needs(library.chosen(one, (), given)))


def with_models(variables: Mapping[str, str], needs: Sequence[str]) -> dict[str, str]:
    """Add models to those that the variables ask for."""
    models = dict.fromkeys([*filter(None, variables.get("MODELS", "").split(",")), *needs])
    return {**variables, "MODELS": ",".join(models)} if models else {**variables}


def pair(text: str, option: str, optional: bool = False) -> tuple[str, str]:
    """Read VARIABLE=VALUE; with `optional` the value may be missing."""
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not (equals or optional):
        raise UsageError(f"{option} takes VARIABLE=VALUE")
    return name, value


def volume(api: Api, volume_id: str) -> Volume:
    """Find a network volume."""
    found = api.get(f"/v2/network-volumes/{volume_id}", f"find the network volume {volume_id}")
    return Volume(found["id"], int(found["size"]), found["dataCenter"])


def _floor(world: World) -> str:
    """The CUDA floor that this checkout builds images with."""
    try:
        text = (world.root / "nix/default.nix").read_text(encoding="utf-8")
    except OSError:
        return ""
    _, _, rest = text.partition('cudaFloor = "')
    return rest.partition('"')[0]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _pod(api: Api, name: str) -> Mapping[str, Any]:
    found = creation.pods(api)
    mine = [pod for pod in found if name == pod["id"]] or [pod for pod in found if name == pod["name"]]
    if len(mine) == 1:
        return mine[0]
    if mine:
        raise UsageError(f"{len(mine)} pods are named {name}: give an id, {' or '.join(pod['id'] for pod in mine)}")
    shown = ", ".join(f"{pod['id']} ({pod['name']})" for pod in found) or "none"
    raise UsageError(f"there is no pod {name}; the account has {shown}")


def _allowed(pod: Mapping[str, Any], action: str) -> None:
    if action not in pod["actions"]:
        able = ", ".join(pod["actions"]) or "nothing"
        raise PodError(f"pod {pod['id']} is {pod['status']}: RunPod allows {able}, not {action}")


def _act(api: Api, pod: Mapping[str, Any], action: str, args: argparse.Namespace) -> int:
    found = api.change("POST", pod_path(pod["id"], "action"), f"{action} {pod['id']}", {"action": action})
    if args.json:
        print(json.dumps({"id": pod["id"], "status": found["status"]}))
    else:
        after = "; its volume stays, and is paid for" if action == "stop" else f", ${found['cost']:.2f} an hour"
        print(f"{pod['id']} is {found['status']}{after}")
    return 0


VERBS: dict[str, Callable[[argparse.Namespace, World], int]] = {
    "plan": plan,
    "create": create,
    "list": list_pods,
    "status": status,
    "logs": logs,
    "ssh": ssh,
    "open": open_page,
    "start": start,
    "stop": stop,
    "terminate": terminate,
    "cost": cost,
    "template": template,
}
