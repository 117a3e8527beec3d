"""`hearmeman-pod volume create | delete`: the price is said first, and no answer leaves a volume that nobody knows of."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from hearmeman_pod.api import Api
from hearmeman_pod.cost import network_price
from hearmeman_pod.errors import UnknownOutcomeError, UsageError
from hearmeman_pod.planned import find_volume, volumes
from hearmeman_pod.say import agreed, note, say
from hearmeman_pod.volume_s3 import DATA_CENTERS
from hearmeman_pod.world import World

SMALLEST_GB, LARGEST_GB = 10, 4096
"""What RunPod's API takes (CreateNetworkVolumeRequest)."""


def create(args: argparse.Namespace, world: World) -> int:
    """Make a volume."""
    if not SMALLEST_GB <= args.size <= LARGEST_GB:
        raise UsageError(f"a network volume has {SMALLEST_GB} to {LARGEST_GB} GB, not {args.size}")
    api = world.api()
    same = [one for one in volumes(api) if one["name"] == args.name]
    if same:
        raise UsageError(f"there is a volume {args.name} already, {same[0]['id']}: use it, or give another name")
    if args.datacenter not in DATA_CENTERS:
        note(f"RunPod has no S3 API in {args.datacenter}: `volume fill` works in {', '.join(sorted(DATA_CENTERS))}")
    price = network_price({"type": "STANDARD", "size": args.size})
    what = (
        f"{args.name}, {args.size} GB in {args.datacenter}, costs ${price:.2f} a month until it is deleted, used "
        "or not."
    )
    if not agreed(what, args.yes):
        return 1
    body = {"name": args.name, "size": args.size, "dataCenter": args.datacenter}
    made = _sent(api, body)
    if args.json:
        print(json.dumps({**made, "per_month": price}, indent=1))
    else:
        print(
            f"volume {made['id']} is made, ${price:.2f} a month: hearmeman-pod volume fill {made['id']} --set WAN_480P=true"
        )
    return 0


def _sent(api: Api, body: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(api.change("POST", "/v2/network-volumes", "create the volume", body))
    except UnknownOutcomeError as error:
        say(f"{error}: checking whether it was created")
        found = [one for one in volumes(api) if one["name"] == body["name"]]
        if not found:
            raise
        return found[0]


def delete(args: argparse.Namespace, world: World) -> int:
    """Delete a volume and all that is on it."""
    api = world.api()
    one = find_volume(api, args.volume)
    if not agreed(
        f"This deletes volume {one['name']} ({one['id']}), {one['size']} GB, and all that is on it.", args.yes
    ):
        return 1
    try:
        api.change("DELETE", f"/v2/network-volumes/{one['id']}", "delete the volume")
    except UnknownOutcomeError as error:
        say(f"{error}: checking whether it is gone")
        if any(other["id"] == one["id"] for other in volumes(api)):
            raise
    print(json.dumps({"id": one["id"], "deleted": True}) if args.json else f"volume {one['id']} is deleted")
    return 0
