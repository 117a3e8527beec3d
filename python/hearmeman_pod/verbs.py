"""The verbs for pods that exist: look at them, get in, start, stop and end them."""

from __future__ import annotations

import argparse
import json
import subprocess
import time
import webbrowser
from collections.abc import Mapping
from typing import Any

from hearmeman import terminal
from hearmeman_pod import create as creation
from hearmeman_pod import ready, show
from hearmeman_pod.api import Api, pod_path
from hearmeman_pod.courier import ssh_words
from hearmeman_pod.errors import PodError, UnknownOutcomeError, UsageError
from hearmeman_pod.gpus import cuda_version
from hearmeman_pod.logs import follow
from hearmeman_pod.planned import floor_of
from hearmeman_pod.say import agreed, say
from hearmeman_pod.world import COMFYUI_PORT, VOICE_PORTS, World

_START_LOOKS, _START_PAUSE = 30, 3.0
"""How long a pod that is started again is watched."""


def list_pods(args: argparse.Namespace, world: World) -> int:
    """Show the account's pods and what they cost an hour together."""
    found = creation.pods(world.api())
    if args.json:
        print(json.dumps([show.pod_facts(pod, world) for pod in found], indent=1))
    else:
        print("\n".join(show.list_lines(found, world.time())))
    return 0


def status(args: argparse.Namespace, world: World) -> int:
    """Show one pod, and what it says of itself."""
    pod = find(world.api(), args.pod)
    code, own = world.inside.get(pod["id"], ready.STATUS_PORT, "/status") if pod["status"] == "RUNNING" else (0, None)
    if args.json:
        print(json.dumps({**show.pod_facts(pod, world), "pod_status": own if code == 200 else None}, indent=1))
    else:
        more = show.own_rows(code, own, world.time()) if pod["status"] == "RUNNING" else ()
        print(terminal.plain("\n".join(show.pod_lines(pod, world, more))))
    return 0


def logs(args: argparse.Namespace, world: World) -> int:
    """Print a pod's log."""
    api = world.api()
    pod = find(api, args.pod)
    silence = 60.0 if args.follow else 5.0
    for when, source, line in follow(
        api, pod["id"], args.tail, args.source or "", forever=args.follow, silence=silence
    ):
        text = json.dumps({"ts": when, "source": source, "line": line}) if args.json else f"{when} {source:9} {line}"
        print(text, flush=True)
    return 0


def ssh(args: argparse.Namespace, world: World) -> int:
    """Log in by SSH: directly where the pod has a public port, otherwise by RunPod's proxy."""
    pod = find(world.api(), args.pod)
    direct, proxy = pod["ssh"]["direct"], pod["ssh"]["proxy"]
    way = direct or proxy
    if way is None:
        raise PodError(f"pod {pod['id']} is {pod['status']} and has no SSH address yet: wait until it runs")
    if args.command and direct is None:
        raise PodError("RunPod's SSH proxy has no commands, only a shell: the pod needs 22/tcp and a public address")
    words = ssh_words(pod, way, world.home, args.identity, args.ssh_config)
    if args.json:
        print(json.dumps({"argv": [*words, *args.command]}))
        return 0
    return subprocess.run([*words, *args.command]).returncode


def open_page(args: argparse.Namespace, world: World) -> int:
    """Open ComfyUI in the browser."""
    pod = find(world.api(), args.pod)
    url = world.inside.url(pod["id"], COMFYUI_PORT, "/")
    print(json.dumps({"url": url}) if args.json else url)
    if not (args.only_print or args.json):
        webbrowser.open(url)
    return 0


def start(args: argparse.Namespace, world: World) -> int:
    """Start a stopped pod, and look at its host's CUDA version before and after: a resumed pod cannot ask for one."""
    api = world.api()
    pod = find(api, args.pod)
    _allowed(pod, "start")
    floor = (pod.get("gpu") or {}).get("minCudaVersion") or floor_of(world)
    has = pod.get("cudaVersion")
    if has and floor and cuda_version(has) < cuda_version(floor) and not args.force:
        raise PodError(
            f"pod {pod['id']} is bound to a host with CUDA {has}, and the image needs {floor}: ComfyUI would "
            "fail at its "
            "first use of the GPU. Create a new pod, or give --force"
        )
    _act(api, pod, "start")
    return _started(api, pod["id"], floor, args)


def _started(api: Api, pod_id: str, floor: str, args: argparse.Namespace) -> int:
    """Wait until it is known where the pod came back; it is stopped again where it could not use the GPU."""
    for _ in range(_START_LOOKS):
        pod = api.get(pod_path(pod_id), "read the pod's state")
        if pod["status"] not in ("PROVISIONING", "STARTING"):
            break
        time.sleep(_START_PAUSE)
    has = pod.get("cudaVersion")
    if has and floor and cuda_version(has) < cuda_version(floor) and not args.force:
        api.change(
            "POST", pod_path(pod_id, "action"), f"stop {pod_id}, which came back with CUDA {has}", {"action": "stop"}
        )
        raise PodError(
            f"pod {pod_id} came back on a host with CUDA {has}, and the image needs {floor}: it was stopped "
            "again. Create a "
            "new pod, or give --force"
        )
    _print_state(pod, "start", args)
    return 1 if pod["status"] in ("EXITED", "ERROR", "TERMINATED") else 0


def stop(args: argparse.Namespace, world: World) -> int:
    """Stop a pod, unless ComfyUI is at work."""
    api = world.api()
    pod = find(api, args.pod)
    _allowed(pod, "stop")
    if pod["status"] == "RUNNING" and not args.force and (work := _work(pod, world)):
        raise PodError(f"{' and '.join(work)} to do: wait, or give --force to stop it anyway")
    _print_state(_act(api, pod, "stop"), "stop", args)
    return 0


def _work(pod: Mapping[str, Any], world: World) -> list[str]:
    """What the pod's queues hold, each in a few words.

    Raises:
        PodError: a queue cannot be seen.
    """
    queue = _asked(pod, world, COMFYUI_PORT, "/queue")
    jobs = sum(len(queue.get(key, [])) for key in ("queue_running", "queue_pending"))
    found = [f"ComfyUI has {terminal.count(jobs, 'job')}"] if jobs else []
    for port, name in VOICE_PORTS.items():
        health = _asked(pod, world, port, "/health")
        if texts := sum(int(health.get(key, 0)) for key in ("in_flight", "waiting")):
            found.append(f"{name} has {terminal.count(texts, 'text')}")
    return found


def _asked(pod: Mapping[str, Any], world: World, port: int, path: str) -> Mapping[str, Any]:
    """What answers at a port of the pod; nothing where nothing does."""
    if f"{port}/http" not in pod["ports"]:
        return {}
    code, said = world.inside.get(pod["id"], port, path)
    if code in (401, 403):
        raise PodError("the pod's queues cannot be seen: set ACCESS_TOKEN here too, or give --force to stop it anyway")
    return said if isinstance(said, dict) else {}


def terminate(args: argparse.Namespace, world: World) -> int:
    """End a pod for good, after a question."""
    api = world.api()
    pod = find(api, args.pod)
    if not agreed(f"This ends pod {pod['id']} ({pod['name']}) and deletes its own volume.", args.yes):
        return 1
    creation.terminate(api, pod["id"], say)
    if args.json:
        print(json.dumps({"id": pod["id"], "status": "TERMINATED"}))
    return 0


def find(api: Api, name: str) -> Mapping[str, Any]:
    """Find a pod by its id or name.

    Raises:
        UsageError: there is none, or there are several of this name.
    """
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


def _act(api: Api, pod: Mapping[str, Any], action: str) -> Mapping[str, Any]:
    """Have it done; the pod as it is then. Without an answer, look."""
    path = pod_path(pod["id"])
    try:
        found: Mapping[str, Any] = api.change("POST", f"{path}/action", f"{action} {pod['id']}", {"action": action})
        return found
    except UnknownOutcomeError as error:
        say(f"{error}: checking what became of it")
        now: Mapping[str, Any] = api.get(path, "read the pod's state")
        if action in now["actions"]:
            raise PodError(f"{error}. The pod is {now['status']}: it was not done, try again") from error
        return now


def _print_state(pod: Mapping[str, Any], action: str, args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps({"id": pod["id"], "status": pod["status"]}))
        return
    after = "; its volume stays, and is paid for" if action == "stop" else f", ${pod['cost']:.2f} an hour"
    print(f"{pod['id']} is {pod['status']}{after}")
