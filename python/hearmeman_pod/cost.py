"""`hearmeman-pod cost`: what pods and network volumes have cost, and what goes on costing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hearmeman import terminal
from hearmeman_pod import create as creation
from hearmeman_pod.show import STOPPED_GB_MONTH
from hearmeman_pod.world import World


def cost(args: argparse.Namespace, world: World) -> int:
    """Show what pods and network volumes have cost, and what goes on costing."""
    api = world.api()
    parameters = {"bucketSize": "day", "lastN": str(args.days)}
    records = api.get("/v2/billing/pods", "read the bill of pods", **parameters)["records"]
    volumes = api.get("/v2/billing/network-volumes", "read the bill of volumes", **parameters)["records"]
    facts = cost_facts(records, volumes, creation.pods(api), args.days)
    print(json.dumps(facts, indent=1) if args.json else "\n".join(cost_lines(facts)))
    return 0


def cost_facts(
    records: Iterable[Mapping[str, Any]],
    volumes: Iterable[Mapping[str, Any]],
    pods: Sequence[Mapping[str, Any]],
    days: int,
) -> dict[str, Any]:
    """Sum the bill: pods, volumes, and what goes on costing now."""
    by_pod: dict[str, float] = {}
    for record in records:
        by_pod[record["podId"]] = by_pod.get(record["podId"], 0.0) + record["totalAmount"]
    names = {pod["id"]: pod["name"] for pod in pods}
    stopped = [
        {"id": pod["id"], "name": pod["name"], "gb": size, "per_month": round(size * STOPPED_GB_MONTH, 2)}
        for pod in pods
        if pod["status"] == "EXITED" and (size := pod["mounts"].get("persistent", {}).get("size", 0))
    ]
    return {
        "days": days,
        "pods": [{"id": pod, "name": names.get(pod), "dollars": round(sum_, 4)} for pod, sum_ in by_pod.items()],
        "pods_dollars": round(sum(by_pod.values()), 4),
        "volumes_dollars": round(sum(record["totalAmount"] for record in volumes), 4),
        "running_per_hour": round(sum(pod["cost"] for pod in pods), 4),
        "stopped_volumes": stopped,
    }


def cost_lines(facts: Mapping[str, Any]) -> list[str]:
    """The bill for people."""
    rows = [(item["id"], item["name"] or "(gone)", f"${item['dollars']:.2f}") for item in facts["pods"]]
    lines = terminal.table(rows, head=("pod", "name", "dollars"), right=(2,)) if rows else ["no pod was billed"]
    lines += [
        "",
        f"pods ${facts['pods_dollars']:.2f}, network volumes ${facts['volumes_dollars']:.2f} in {facts['days']} days",
    ]
    lines.append(f"running now: ${facts['running_per_hour']:.2f} an hour")
    lines += [
        f"stopped, but its volume still costs about ${item['per_month']:.2f} a month: {item['id']} ({item['name']}, {item['gb']} GB)"
        for item in facts["stopped_volumes"]
    ]
    return [*lines, "What the bucket costs: `hearmeman sync cost` in the pod."]
