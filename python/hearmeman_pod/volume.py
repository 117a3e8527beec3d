"""`hearmeman-pod volume`: its actions and their options; lists the account's network volumes."""

from __future__ import annotations

import argparse
import json
from typing import Any

from hearmeman import terminal
from hearmeman_pod import volume_account, volume_s3
from hearmeman_pod.cost import network_price
from hearmeman_pod.planned import volumes
from hearmeman_pod.world import World


def run(args: argparse.Namespace, world: World) -> int:
    """Run one of the actions."""
    return _ACTIONS[args.action](args, world)


def _list(args: argparse.Namespace, world: World) -> int:
    found = volumes(world.api())
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        rows = [(one["id"], one["name"], f"{one['size']} GB", one["dataCenter"], _price(one)) for one in found]
        print("\n".join(terminal.table(rows, wraps=(1,))) or "no volumes")
    return 0


def _price(volume: dict[str, Any]) -> str:
    price = network_price(volume)
    return "price unknown" if price is None else f"${price:.2f} a month"


def add(sub: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = sub.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, help in (
        ("list", "the account's network volumes"),
        ("create", "create a network volume, after showing its price"),
        ("delete", "delete a network volume and all that is on it"),
        ("fill", "bring models to a network volume; the same command goes on where it ended"),
        ("sweep", "remove what is half sent on a network volume"),
    ):
        made = actions.add_parser(name, help=help, description=help, allow_abbrev=False)
        made.add_argument("--json", action="store_true", help="one JSON object on standard output")
        if name == "create":
            made.add_argument("name", help="its name")
            made.add_argument(
                "--size", type=int, required=True, metavar="GB", help="10 to 4096; it can grow, not shrink"
            )
            made.add_argument(
                "--datacenter", required=True, metavar="DC", help="where, such as US-KS-2: pods there can use it"
            )
        if name == "delete":
            made.add_argument("volume", help="the volume's id or name")
        if name == "sweep":
            made.add_argument("volume", help="the volume's id or name")
        if name in ("create", "delete", "sweep"):
            made.add_argument("--yes", action="store_true", help="do not ask")
        if name == "fill":
            made.add_argument("volume", help="the volume's id or name")
            made.add_argument(
                "--set", action="append", default=[], metavar="VARIABLE=VALUE", help="as for a pod: which models"
            )
            made.add_argument(
                "--gpu-tier",
                default="consumer",
                choices=("consumer", "prosumer", "datacenter"),
                help="for models of one tier (consumer)",
            )
            made.add_argument(
                "--verify",
                action="store_true",
                help="read back, whole, each file that is there without a record of its hash",
            )
            made.add_argument(
                "--replace", action="store_true", help="replace another file of the same name that no fill has brought"
            )


_ACTIONS = {
    "list": _list,
    "create": volume_account.create,
    "delete": volume_account.delete,
    "fill": volume_s3.fill,
    "sweep": volume_s3.sweep,
}
