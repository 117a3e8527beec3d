"""Plans, pods and bills as people and programs read them; pure."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hearmeman import terminal
from hearmeman_pod.plan import ORDER, Plan
from hearmeman_pod.ready import Inside

HOURS_A_MONTH = 730
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


def pod_facts(pod: Mapping[str, Any], inside: Inside) -> dict[str, Any]:
    """A pod for programs, without the values of its variables."""
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
        "urls": {str(port): inside.url(pod["id"], port, "/") for port in _http(pod)},
        "ssh": (pod["ssh"]["direct"] or pod["ssh"]["proxy"] or {}).get("command"),
        "created": pod["createdAt"],
        "started": pod["startedAt"],
    }


def pod_lines(pod: Mapping[str, Any], inside: Inside, now: float, own: Mapping[str, Any] | None = None) -> list[str]:
    """A pod for people; `own` is its own /status."""
    facts = pod_facts(pod, inside)
    gpu = pod.get("gpu") or {}
    rows: list[tuple[str, object]] = [
        ("pod", f"{pod['id']}, {pod['name']}"),
        ("status", pod["status"].lower() + _since(pod.get("startedAt"), now)),
        ("GPU", f"{gpu.get('count', 0)} x {gpu.get('id', 'none')}, CUDA {pod['cudaVersion'] or 'unknown'}"),
        ("cost", _cost(pod)),
        ("image", pod["image"]),
    ]
    names = {"8188": "ComfyUI", "19123": "status page", "8888": "JupyterLab", "8000": "Chatterbox", "8020": "XTTS"}
    rows += [(names.get(port, f"port {port}"), url) for port, url in facts["urls"].items()]
    if facts["ssh"]:
        rows.append(("SSH", facts["ssh"]))
    if own:
        rows.append(("ready", "yes" if own.get("ready") else f"not yet: {own.get('ready_why', '')}"))
    return terminal.pairs(rows)


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
