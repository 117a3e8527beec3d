"""Plans, pods and bills as people and programs read them; pure."""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hearmeman import terminal
from hearmeman.status.collect import countdown
from hearmeman.status.command import fetch_words
from hearmeman_pod.courier import ssh_words
from hearmeman_pod.plan import ORDER, Plan
from hearmeman_pod.ready import STATUS_PORT
from hearmeman_pod.world import COMFYUI_PORT, VOICE_PORTS, World

Rows = Sequence[tuple[str, object]]
"""Names and what is said of each."""
STOPPED_GB_MONTH = 0.20
"""Dollars for a gigabyte of a stopped pod's volume and a month (RunPod's price list)."""


def plan_facts(plan: Plan) -> dict[str, Any]:
    """The plan for programs; `body` is the request."""
    return {
        "image": plan.image.reference,
        "body": plan.body,
        "gpus": [
            {"id": gpu.id, "memory_gb": gpu.memory, "price": gpu.price, "stock": gpu.stock or None}
            for gpu in plan.choices
        ],
        "models": [{"id": name, "bytes": size} for name, size in plan.models],
        "model_bytes": plan.model_bytes,
        "memory_gb": plan.memory_gb,
        "price_per_hour": plan.price,
        "ready_seconds": round(plan.ready_seconds),
        "notes": list(plan.notes),
    }


def plan_lines(plan: Plan, has_key: bool) -> list[str]:
    """The plan for people: image, models, GPUs, cost, the request."""
    body = plan.body
    mounts = body.get("mounts", {})
    if "persistent" in mounts:
        volume = f"{mounts['persistent']['size']} GB of the pod's own at {mounts['persistent']['path']}"
    elif mounts.get("network"):
        volume = f"network volume {mounts['network'][0]['volumeId']} at {mounts['network'][0]['path']}"
    else:
        volume = "none: everything is lost with the pod"
    price = "unknown without an API key" if plan.price is None else f"${plan.price:.2f} an hour"
    ready = terminal.duration(plan.ready_seconds)
    if plan.price is not None:
        ready += f", ${plan.price * plan.ready_seconds / 3600:.2f} until then"
    rows: list[tuple[str, object]] = [
        ("image", plan.image.reference),
        ("models", f"{terminal.size(plan.model_bytes)} in {len(plan.models)}, they need {plan.memory_gb:g} GB of VRAM"),
        *(("", f"{name}, {terminal.size(size)}") for name, size in plan.models),
        ("disk", f"{body['disk']} GB for the container"),
        ("volume", volume),
        ("ports", ", ".join(body["ports"])),
        ("CUDA", f"{body['gpu'].get('minCudaVersion', 'any')} or newer"),
        ("price", price),
        ("all there", f"about {ready}"),
    ]
    lines = terminal.pairs(rows)
    lines += [
        "",
        *terminal.table(
            [
                (gpu.id, f"{gpu.memory} GB", f"${gpu.price:.2f}" if gpu.price else "", gpu.stock.lower())
                for gpu in plan.choices
            ],
            head=("GPU, first choice first", "memory", "an hour", "free now"),
            right=(1, 2),
        ),
    ]
    lines += ["", "The request:", json.dumps(body, indent=1)]
    if plan.notes:
        lines += ["", *terminal.pairs([("note", note) for note in plan.notes])]
    if not has_key:
        lines += ["", "Set RUNPOD_API_KEY to see prices and what is free."]
    return lines


def pod_facts(pod: Mapping[str, Any], world: World) -> dict[str, Any]:
    """A pod for programs, without the values of its variables."""
    way = pod["ssh"]["direct"] or pod["ssh"]["proxy"]
    return {
        "id": pod["id"],
        "name": pod["name"],
        "status": pod["status"],
        "image": pod["image"],
        "gpu": pod.get("gpu"),
        "cost_per_hour": pod["cost"],
        "cuda": pod["cudaVersion"],
        "data_center": pod["dataCenterId"],
        "variables": sorted(name for name in pod.get("env") or {} if name != ORDER),
        "urls": {str(port): world.inside.url(pod["id"], port, "/") for port in _http(pod)},
        # RunPod's own line takes the next pod at an address for an impostor of the one before.
        "ssh": shlex.join(ssh_words(pod, way, world.home, options=())) if way else None,
        "created": pod["createdAt"],
        "started": pod["startedAt"],
    }


def pod_lines(pod: Mapping[str, Any], world: World, more: Rows = ()) -> list[str]:
    """A pod for people, as RunPod knows it; `more` is what it says of itself."""
    facts = pod_facts(pod, world)
    gpu = pod.get("gpu") or {}
    rows: list[tuple[str, object]] = [
        ("pod", f"{pod['id']}, {pod['name']}"),
        ("status", pod["status"].lower() + _since(pod.get("startedAt"), world.time())),
        ("GPU", f"{gpu.get('count', 0)} x {gpu.get('id', 'none')}, CUDA {pod['cudaVersion'] or 'unknown'}"),
        ("cost", _cost(pod)),
        ("image", pod["image"]),
    ]
    names = {COMFYUI_PORT: "ComfyUI", STATUS_PORT: "status page", 8888: "JupyterLab", **VOICE_PORTS}
    rows += [(names.get(int(port), f"port {port}"), url) for port, url in facts["urls"].items()]
    if facts["ssh"]:
        rows.append(("SSH", facts["ssh"]))
    return terminal.pairs([*rows, *more])


def own_rows(code: int, own: Mapping[str, Any] | None, now: float) -> Rows:
    """What a pod that runs says of itself: `code` is HTTP's, `own` its /status, `now` Unix seconds."""
    if code in (401, 403):
        return [("now", "it asks for its token: set ACCESS_TOKEN here to see how far it is")]
    if code != 200 or own is None:
        return [("now", "its status page does not answer yet")]
    how = own.get("state") or {}
    rows = [("now", ": ".join(filter(None, (how.get("headline"), how.get("detail")))) or "it boots")]
    if models := own.get("models"):
        rows.append(("models", fetch_words(models, now)))
    if ends := countdown(own.get("idle") or {}, now):
        rows.append(("end", ends))
    for one in own.get("problems") or ():
        rows.append((one["level"], "; ".join(filter(None, (one["what"], one["fix"])))))
    return rows


def list_lines(pods: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    """The account's pods, and what they cost together."""
    if not pods:
        return ["no pods"]
    rows = [
        (
            pod["id"],
            pod["name"],
            pod["status"].lower(),
            (pod.get("gpu") or {}).get("id", ""),
            _cost(pod),
            _age(pod["createdAt"], now),
        )
        for pod in pods
    ]
    lines = terminal.table(rows, head=("id", "name", "status", "GPU", "cost", "made"), wraps=(1, 3, 4))
    total = sum(pod["cost"] for pod in pods)
    return [*lines, "", f"together ${total:.2f} an hour, ${total * 24:.2f} a day"]


def _cost(pod: Mapping[str, Any]) -> str:
    if pod["status"] == "EXITED":
        size = pod["mounts"].get("persistent", {}).get("size", 0)
        return f"its {size} GB volume, about ${size * STOPPED_GB_MONTH:.2f} a month" if size else "nothing"
    return f"${pod['cost']:.2f} an hour"


def _http(pod: Mapping[str, Any]) -> list[int]:
    return [int(port.partition("/")[0]) for port in pod["ports"] if port.endswith("/http")]


def _seconds(text: str | None) -> float | None:
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _age(text: str | None, now: float) -> str:
    when = _seconds(text)
    return terminal.age(now - when) if when is not None else ""


def _since(text: str | None, now: float) -> str:
    age = _age(text, now)
    return f", started {age}" if age else ""
