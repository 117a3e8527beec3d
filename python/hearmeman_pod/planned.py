"""A command line's options to the plan of a pod: image, models, GPUs with live prices, volume."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hearmeman.models import catalogue as catalogues
from hearmeman.workflows import library
from hearmeman_pod import gpus, images
from hearmeman_pod.api import Api
from hearmeman_pod.errors import UsageError
from hearmeman_pod.plan import Plan, Volume, Wishes, make_plan
from hearmeman_pod.world import World


def planned(args: argparse.Namespace, world: World, api: Api | None, ends_itself: bool = False) -> Plan:
    """Plan the pod that the options describe; without `api` nothing of RunPod is known."""
    floor = floor_of(world)
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
    # A worker fetches its models at each start; `run` and --workflow name what is needed, and that may be nothing.
    by_itself = args.verb in ("plan", "create", "template") and not getattr(args, "workflows", [])
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
        network_volume=volume_of(api, args.network_volume) if api and args.network_volume else None,
        max_price=args.max_price,
        registry=args.registry,
        ends_itself=ends_itself,
        recommended=True if args.recommended else None if by_itself else False,
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


def volumes(api: Api) -> list[dict[str, Any]]:
    """The account's network volumes."""
    return list(api.get("/v2/network-volumes", "list the network volumes")["networkVolumes"])


def find_volume(api: Api, name: str) -> dict[str, Any]:
    """Find a network volume by its id or name.

    Raises:
        UsageError: there is none, or there are several of this name.
    """
    known = volumes(api)
    found = [one for one in known if name == one["id"]] or [one for one in known if name == one["name"]]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{len(found)} volumes are named {name}: give an id, {' or '.join(one['id'] for one in found)}"
        )
    shown = ", ".join(f"{one['id']} ({one['name']})" for one in known) or "none"
    raise UsageError(f"there is no volume {name}; the account has {shown}")


def volume_of(api: Api, name: str) -> Volume:
    """A network volume as a plan takes it; `name` is its id or name, and it raises as `find_volume`."""
    found = find_volume(api, name)
    return Volume(found["id"], int(found["size"]), found["dataCenter"])


def floor_of(world: World) -> str:
    """The CUDA floor that this checkout builds images with."""
    try:
        text = (world.root / "nix/default.nix").read_text(encoding="utf-8")
    except OSError:
        return ""
    _, _, rest = text.partition('cudaFloor = "')
    return rest.partition('"')[0]
