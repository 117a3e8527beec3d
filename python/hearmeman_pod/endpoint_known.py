"""The account's endpoints: the list, one by its id or name, its address, its queue of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from hearmeman_pod.api import Api
from hearmeman_pod.errors import UsageError
from hearmeman_pod.jobs import JOBS, Jobs
from hearmeman_pod.key import find_key
from hearmeman_pod.world import World

Endpoint = Mapping[str, Any]
"""An endpoint as the API gives it."""


def every(api: Api) -> list[Endpoint]:
    """All endpoints of the account."""
    found: list[Endpoint] = api.get("/v2/serverless", "list the endpoints")["endpoints"]
    return found


def one(api: Api, wanted: str) -> Endpoint:
    """Find an endpoint by its id or name; RunPod adds ` -fb` to the name where FlashBoot is on.

    Raises:
        UsageError: there is none, or several of this name.
    """
    known = every(api)
    mine = [known_one for known_one in known if wanted == known_one["id"]] or [
        known_one for known_one in known if wanted in (known_one["name"], plain_name(known_one))
    ]
    if len(mine) == 1:
        return mine[0]
    if mine:
        raise UsageError(f"{len(mine)} endpoints are named {wanted}: give an id, {' or '.join(e['id'] for e in mine)}")
    shown = ", ".join(f"{known_one['id']} ({plain_name(known_one)})" for known_one in known) or "none"
    raise UsageError(f"there is no endpoint {wanted}; the account has {shown}")


def plain_name(endpoint: Endpoint) -> str:
    """The name as it was given."""
    return str(endpoint["name"]).removesuffix(" -fb")


def facts(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint for programs, without its environment: somebody may have put a secret there by hand."""
    return {key: value for key, value in endpoint.items() if key != "env"}


def path(endpoint: str) -> str:
    """The path of an endpoint, whatever its id holds."""
    return f"/v2/serverless/{quote(endpoint, safe='')}"


def queue(world: World, endpoint: Endpoint) -> Jobs:
    """The endpoint's queue of jobs.

    Raises:
        UsageError: it is a load balancer, which has none.
    """
    if endpoint.get("type") == "LOAD_BALANCER":
        raise UsageError(
            f"{plain_name(endpoint)} is a voice API behind a load balancer: it has no jobs. Send requests to "
            f"https://{endpoint['id']}.api.runpod.ai, with the RunPod key as the bearer token"
        )
    return Jobs(Api(find_key(world.environ, world.home), world.environ.get("RUNPOD_JOBS_URL") or JOBS), endpoint["id"])
