"""`hearmeman-pod cost`: what pods, workers and volumes have cost, and what goes on costing, the bucket included."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hearmeman import terminal
from hearmeman_pod import bucket, planned
from hearmeman_pod import create as creation
from hearmeman_pod.bucket import Stored
from hearmeman_pod.show import STOPPED_GB_MONTH
from hearmeman_pod.world import World

NETWORK_GB_MONTH, NETWORK_GB_MONTH_BEYOND, NETWORK_STEP_GB = 0.07, 0.05, 1000
"""Dollars for a gigabyte of a standard network volume and a month: up to this many, and for those above (RunPod's price list)."""

Records = Iterable[Mapping[str, Any]]


def cost(args: argparse.Namespace, world: World) -> int:
    """Show the bill; 1 where the bucket was to be asked and could not be."""
    api = world.api()
    query = {"bucketSize": "day", "lastN": str(args.days)}
    bills = {
        "pods": (api.get("/v2/billing/pods", "read the bill of pods", **query)["records"], "podId"),
        "serverless": (
            api.get("/v2/billing/serverless", "read the bill of workers", **query)["records"],
            "serverlessId",
        ),
        "volumes": (
            api.get("/v2/billing/network-volumes", "read the bill of volumes", **query)["records"],
            "networkVolumeId",
        ),
    }
    pods = creation.pods(api)
    volumes = planned.volumes(api)
    endpoints = api.get("/v2/serverless", "list the endpoints")["endpoints"]
    names = {item["id"]: item["name"] for item in (*pods, *volumes, *endpoints)}
    stored, problem = bucket.stored(world.environ) if bucket.is_known(world.environ) else (None, "")
    facts = {
        "days": args.days,
        **billed(bills, names),
        **going_on(pods, volumes, stored),
        "bucket_problem": problem,
    }
    print(json.dumps(facts, indent=1) if args.json else "\n".join(lines(facts)))
    return 1 if problem else 0


def billed(bills: Mapping[str, tuple[Records, str]], names: Mapping[str, str]) -> dict[str, Any]:
    """Sum the records of each kind by the thing that they are for; dollars, the dearest first."""
    found: dict[str, Any] = {}
    for kind, (records, key) in bills.items():
        sums: dict[str, float] = {}
        for record in records:
            sums[record[key]] = sums.get(record[key], 0.0) + record["totalAmount"]
        rows = sorted(sums.items(), key=lambda pair: -pair[1])
        found[kind] = [{"id": id, "name": names.get(id), "dollars": round(dollars, 4)} for id, dollars in rows]
        found[f"{kind}_dollars"] = round(sum(sums.values()), 4)
    found["dollars"] = round(sum(found[f"{kind}_dollars"] for kind in bills), 4)
    return found


def going_on(pods: Sequence[Mapping[str, Any]], volumes: Records, stored: Stored | None) -> dict[str, Any]:
    """What costs from now on: running pods by the hour; stopped pods' volumes, network volumes and the bucket by the month."""
    running = [
        {"id": pod["id"], "name": pod["name"], "per_hour": pod["cost"]} for pod in pods if pod["status"] != "EXITED"
    ]
    stopped = [
        {"id": pod["id"], "name": pod["name"], "gb": size, "per_month": round(size * STOPPED_GB_MONTH, 2)}
        for pod in pods
        if pod["status"] == "EXITED" and (size := pod["mounts"].get("persistent", {}).get("size", 0))
    ]
    network = [
        {"id": one["id"], "name": one["name"], "gb": one["size"], "per_month": network_price(one)} for one in volumes
    ]
    monthly = [item["per_month"] or 0.0 for item in (*stopped, *network)]
    return {
        "running": running,
        "running_per_hour": round(sum(item["per_hour"] for item in running), 4),
        "stopped_volumes": stopped,
        "network_volumes": network,
        "bucket": {**asdict(stored), "per_month": round(stored.per_month, 4)} if stored else None,
        "stored_per_month": round(sum(monthly) + (stored.per_month if stored else 0.0), 4),
    }


def network_price(volume: Mapping[str, Any]) -> float | None:
    """Dollars a month of a network volume; None where RunPod's price list says nothing of its type."""
    if volume["type"] != "STANDARD":
        return None
    size = int(volume["size"])
    first = min(size, NETWORK_STEP_GB)
    return round(first * NETWORK_GB_MONTH + (size - first) * NETWORK_GB_MONTH_BEYOND, 2)


_KINDS = (("pods", "pod"), ("serverless", "endpoint"), ("volumes", "volume"))


def lines(facts: Mapping[str, Any]) -> list[str]:
    """The bill for people."""
    rows = [
        (word, item["id"], item["name"] or "(gone)", f"${item['dollars']:.2f}")
        for kind, word in _KINDS
        for item in facts[kind]
    ]
    shown = [f"Billed in the last {terminal.count(facts['days'], 'day')}:", ""]
    if rows:
        rows.append(("together", "", "", f"${facts['dollars']:.2f}"))
        shown += terminal.table(rows, head=("", "id", "name", "dollars"), right=(3,), wraps=(2,))
    else:
        shown.append("nothing")
    return [*shown, "", "What keeps costing:", "", *_going_on_lines(facts), "", _about_bucket(facts)]


def _going_on_lines(facts: Mapping[str, Any]) -> list[str]:
    rows = [(f"{one['id']}, {one['name']}", "runs", f"${one['per_hour']:.2f}", "") for one in facts["running"]]
    for kind, words in (("stopped_volumes", "stopped, volume of"), ("network_volumes", "network volume,")):
        rows += [
            (f"{one['id']}, {one['name']}", f"{words} {one['gb']} GB", "", _dollars(one["per_month"]))
            for one in facts[kind]
        ]
    if held := facts["bucket"]:
        what = f"bucket, {terminal.size(held['bytes'])} in {terminal.count(held['objects'], 'object')}"
        rows.append((held["bucket"], what, "", _dollars(held["per_month"])))
    if not rows:
        return ["nothing"]
    rows.append(("together", "", _dollars(facts["running_per_hour"]), _dollars(facts["stored_per_month"])))
    return terminal.table(rows, head=("", "", "an hour", "a month"), right=(2, 3), wraps=(0, 1))


def _about_bucket(facts: Mapping[str, Any]) -> str:
    if facts["bucket_problem"]:
        return f"The bucket could not be read: {facts['bucket_problem']}"
    if facts["bucket"]:
        return "Stored at list price; the first 10 GB of a Cloudflare account are free."
    return f"Set {', '.join(bucket.NEEDED[:-1])} and {bucket.NEEDED[-1]} to see the bucket."


def _dollars(dollars: float | None) -> str:
    return "unknown" if dollars is None else f"${dollars:.2f}"
