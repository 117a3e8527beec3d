"""`hearmeman-pod endpoint update`: an endpoint as it is and a person's wishes to the smallest request that makes it so.

What the request holds follows from RunPod's own description: a part that is left out stays, but an environment is replaced whole.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hearmeman.models import catalogue as catalogues
from hearmeman.models.catalogue import Catalogue
from hearmeman.settings import SECRETS
from hearmeman_pod import endpoint_known, gpus, images, schema
from hearmeman_pod.endpoint_known import Endpoint
from hearmeman_pod.endpoint_plan import check_pools
from hearmeman_pod.errors import PodError, UnknownOutcomeError, UsageError
from hearmeman_pod.images import Image
from hearmeman_pod.plan import MOST_VARIABLES, ORDER, Plan, Volume, Wishes, make_plan, strangers, wrong_variables
from hearmeman_pod.planned import floor_of, pair, volume_of
from hearmeman_pod.say import agreed, say
from hearmeman_pod.world import World

_REFERENCE = "{{ RUNPOD_SECRET_"
_OURS = ("IMAGE_DIGEST", ORDER)
"""Variables that the command itself writes."""


@dataclass(frozen=True)
class Changes:
    """What a person wants otherwise; None and empty leave it as it is."""

    image: Image | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Secret variable -> the RunPod secret that holds its value; empty takes the usual name."""
    unset: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    least: int | None = None
    """Workers that always run."""
    most: int | None = None
    """Workers at most; 0 lets none start."""
    idle_seconds: int | None = None
    flashboot: bool | None = None
    delay_seconds: float | None = None
    requests: int | None = None
    job_seconds: int | None = None
    disk_gb: int | None = None
    registry: str | None = None


def patch(
    endpoint: Endpoint, changes: Changes, image: Image, catalogue: Catalogue, mounted: Volume | None = None
) -> dict[str, Any]:
    """Make the request; empty where nothing differs. `image` is the one that the endpoint will have.

    Raises:
        UsageError, HearmemanError: RunPod or the worker would refuse it.
    """
    _refuse(endpoint, changes)
    body: dict[str, Any] = {}
    env, made = _environment(endpoint, changes, image, catalogue, mounted)
    if changes.image and image.reference != endpoint.get("image"):
        body["image"] = image.reference
        if image.cuda_floor and image.cuda_floor != (endpoint.get("gpu") or {}).get("minCudaVersion"):
            body["gpu"] = {"minCudaVersion": image.cuda_floor, "allowedCudaVersions": []}
    if env != endpoint.get("env", {}):
        body["env"] = env
    if changes.pools and list(changes.pools) != (endpoint.get("gpu") or {}).get("pools"):
        check_pools(changes.pools)
        body["gpu"] = {**body.get("gpu", {}), "pools": list(changes.pools)}
    workers = {"min": changes.least, "max": changes.most, "idleTimeout": changes.idle_seconds}
    body |= _part("workers", endpoint, workers)
    scaling = {"queueDelay": changes.delay_seconds, "requestCount": changes.requests}
    if part := _part("scaling", endpoint, scaling):
        body["scaling"] = {**endpoint["scaling"], **part["scaling"]}
    plain = {"timeout": changes.job_seconds and changes.job_seconds * 1000, "registry": changes.registry}
    if changes.flashboot is not None and changes.flashboot == (endpoint["flashboot"] == "OFF"):
        plain["flashboot"] = "FLASHBOOT" if changes.flashboot else "OFF"
    # Without a network volume the models lie on the worker's disk.
    plain["disk"] = changes.disk_gb or (max(made.body["disk"], endpoint.get("disk", 0)) if "env" in body else None)
    body |= {key: value for key, value in plain.items() if value is not None and value != endpoint.get(key)}
    schema.check("UpdateEndpointRequest", body)
    return body


def _refuse(endpoint: Endpoint, changes: Changes) -> None:
    wrong = wrong_variables(changes.variables, changes.secrets)
    present = endpoint.get("env", {})
    wrong += [f"--unset {name}: the endpoint has no such variable" for name in changes.unset if name not in present]
    wrong += [
        f"{name} is written by this command itself: leave it out"
        for name in (*changes.variables, *changes.unset)
        if name in _OURS
    ]
    both = {*changes.variables, *changes.secrets} & set(changes.unset)
    wrong += [f"{name} is both set and unset: choose one" for name in sorted(both)]
    least, most = (
        now if wanted is None else wanted
        for now, wanted in zip(map(endpoint["workers"].get, ("min", "max")), (changes.least, changes.most), strict=True)
    )
    if most < least:
        wrong.append(
            f"at most {most} workers, and {least} that always run: give --workers-min and --workers-max that agree"
        )
    kind = endpoint["scaling"]["type"]
    if changes.delay_seconds is not None and kind != "QUEUE_DELAY":
        wrong.append(
            "--queue-delay is for a queue, and this endpoint scales by its number of requests: give --requests"
        )
    if changes.requests is not None and kind != "REQUEST_COUNT":
        wrong.append(
            "--requests is for a voice API, and this endpoint scales by how long jobs wait: give --queue-delay"
        )
    if wrong:
        raise UsageError("\n".join(wrong))


def _environment(
    endpoint: Endpoint, changes: Changes, image: Image, catalogue: Catalogue, mounted: Volume | None
) -> tuple[dict[str, str], Plan]:
    """The environment as it will be, and the pod that a worker with it is."""
    present = {name: value for name, value in endpoint.get("env", {}).items() if name not in changes.unset}
    env = {**present, **changes.variables}
    unknown = strangers(present)
    references = {
        name: value.removeprefix(_REFERENCE).removesuffix(" }}")
        for name, value in present.items()
        if value.startswith(_REFERENCE)
    }
    # A secret that somebody wrote out in RunPod's console stays as it is, and its value is looked at by nobody.
    hidden = {name: "" for name in present if name in SECRETS and name not in references}
    wishes = Wishes(
        name=endpoint_known.plain_name(endpoint),
        variables={
            name: value
            for name, value in env.items()
            if name not in (*_OURS, *SECRETS) and (name not in unknown or name in changes.variables)
        },
        secrets={**hidden, **{n: v for n, v in references.items() if n in SECRETS}, **changes.secrets},
        volume_gb=None if mounted else 0,
        network_volume=mounted,
        recommended=False,
    )
    made = make_plan(wishes, image, catalogue, gpus.from_names())
    needed = {name: value for name, value in made.body["env"].items() if value.startswith(_REFERENCE)}
    env |= {name: value for name, value in needed.items() if name not in present or name in changes.secrets}
    if changes.image:
        env["IMAGE_DIGEST"] = image.reference.partition("@")[2]
    if len(env) > MOST_VARIABLES:
        raise UsageError(f"{len(env)} variables, but RunPod takes at most {MOST_VARIABLES}: --unset some")
    return env, made


def _part(name: str, endpoint: Endpoint, wanted: Mapping[str, Any]) -> dict[str, Any]:
    present = endpoint[name]
    part = {key: value for key, value in wanted.items() if value is not None and value != present.get(key)}
    return {name: part} if part else {}


def differences(endpoint: Endpoint, body: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What the request changes, as (what, before, after); the value of no secret, and of nothing that may be one."""
    found: list[tuple[str, str, str]] = []
    for key, value in body.items():
        present = endpoint.get(key)
        if key == "env":
            before = present or {}
            found += [
                (name, _shown(name, before.get(name)), _shown(name, value.get(name)))
                for name in sorted({*before, *value})
                if before.get(name) != value.get(name)
            ]
        elif isinstance(value, dict):
            before = present or {}
            found += [
                (f"{key}.{name}", _text(before.get(name)), _text(one))
                for name, one in value.items()
                if (before.get(name) or None) != (one or None)
            ]
        else:
            found.append((key, _text(present), _text(value)))
    return found


def _shown(name: str, value: str | None) -> str:
    if value is None:
        return "-"
    plain = value.startswith(_REFERENCE) or name in _OURS or (name not in SECRETS and not strangers({name: value}))
    return value if plain else "(not shown)"


def _text(value: Any) -> str:
    return "-" if value in (None, [], "") else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def update(args: argparse.Namespace, world: World) -> int:
    """Show what would change, ask, and change it."""
    api = world.api()
    found = endpoint_known.one(api, args.endpoint)
    lock = world.root / "images.lock.json"
    new = None
    if args.image:
        new = images.from_reference(args.image, floor_of(world))
    elif args.tier:
        new = images.from_lock(lock, args.tier)
    changes = Changes(
        image=new,
        variables=dict(pair(text, "--set") for text in args.set),
        secrets=dict(pair(text, "--secret", optional=True) for text in args.secret),
        unset=tuple(args.unset),
        pools=tuple(args.pool),
        least=args.workers_min,
        most=args.workers_max,
        idle_seconds=args.idle_seconds,
        flashboot=args.flashboot,
        delay_seconds=args.queue_delay,
        requests=args.requests,
        job_seconds=args.job_seconds,
        disk_gb=args.disk,
        registry=args.registry,
    )
    mounted = volume_of(api, found["networkVolumes"][0]) if found["networkVolumes"] else None
    image = new or images.by_reference(lock, found.get("image", ""))
    catalogue = catalogues.read(Path(catalogues.__file__).with_name("catalogue.toml"))
    body = patch(found, changes, image, catalogue, mounted)
    changed = differences(found, body)
    for what, before, after in changed:
        say(f"{what}: {before} -> {after}")
    if not body:
        say("nothing to change: the endpoint is like that already")
    elif not agreed(_question(found, body), args.yes):
        return 1
    else:
        _apply(api, found, body)
    if args.json:
        print(json.dumps({"id": found["id"], "changes": [dict(zip(_NAMES, one, strict=True)) for one in changed]}))
    elif body:
        print(f"{endpoint_known.plain_name(found)} ({found['id']}) is updated")
    return 0


_NAMES = ("what", "before", "after")


def _question(endpoint: Endpoint, body: Mapping[str, Any]) -> str:
    words = [f"This changes {endpoint_known.plain_name(endpoint)} ({endpoint['id']})."]
    if body.get("workers", {}).get("min"):
        words.append(f"{body['workers']['min']} workers will always run, and cost money even without jobs.")
    if body.get("workers", {}).get("max") == 0:
        words.append("With at most 0 workers, jobs wait in the queue.")
    if {"image", "env", "disk", "gpu"} & set(body):
        words.append("Running workers keep their settings until they end; new ones start with the new settings.")
    return " ".join(words)


def _apply(api: Any, endpoint: Endpoint, body: Mapping[str, Any]) -> None:
    where = endpoint_known.path(endpoint["id"])
    try:
        api.change("PATCH", where, "update the endpoint", body)
    except UnknownOutcomeError as error:
        say(f"{error}: checking what became of it")
        if differences(api.get(where, "read the endpoint"), body):
            raise PodError(f"{error}. The endpoint is as it was: give the same command again") from error
