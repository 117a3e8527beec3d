"""A planned pod and a person's wishes to one request for a Serverless endpoint; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hearmeman_pod import schema
from hearmeman_pod.errors import UsageError

POOLS = ("AMPERE_16", "AMPERE_24", "ADA_24", "AMPERE_48", "ADA_48_PRO", "AMPERE_80", "ADA_80_PRO", "HOPPER_141")
"""RunPod's pools of GPUs, by generation and GB of memory. Source: RunPod's documentation, references/gpu-types."""
MOST_POOLS = 3
VOICES = {"xtts": 8020, "chatterbox": 8000}
"""Voice API -> its port."""
_OF_PODS = ("PUBLIC_KEY", "SSH_PUBLIC_KEY", "JUPYTER_PASSWORD", "IDLE_STOP_MINUTES", "MAX_MINUTES", "IDLE_ACTION")
"""What has no sense in a worker."""


@dataclass(frozen=True)
class Serverless:
    """What a person asked for, beside what a pod has."""

    api: str = ""
    """A voice API behind a load balancer; empty: ComfyUI's worker behind RunPod's queue."""
    pools: tuple[str, ...] = ("ADA_24", "AMPERE_24")
    least: int = 0
    """Workers that always run, and are always paid for."""
    most: int = 3
    """Workers at most."""
    idle_seconds: int = 10
    """How long a worker waits for its next job."""
    flashboot: bool = True
    delay_seconds: float = 4.0
    """How long a job may wait before one more worker is started."""
    requests: int = 1
    """Requests at a time that one worker of a load balancer takes."""
    job_seconds: int = 1800
    """How long one job may take."""


def endpoint_body(pod: Mapping[str, Any], wishes: Serverless, volume: str = "") -> dict[str, Any]:
    """Make the request; `pod` is the request for a pod with the same settings.

    Raises:
        UsageError: RunPod would refuse it.
    """
    check_pools(wishes.pools)
    if wishes.most < max(1, wishes.least):
        least = f"--workers-min {wishes.least}" if wishes.least else "one"
        raise UsageError(f"--workers-max {wishes.most} is less than {least}")
    env = {name: value for name, value in pod["env"].items() if name not in _OF_PODS}
    body: dict[str, Any] = {
        "name": pod["name"],
        "type": "LOAD_BALANCER" if wishes.api else "QUEUE",
        "image": pod["image"],
        "disk": pod["disk"],
        "gpu": {"pools": list(wishes.pools), "count": pod["gpu"]["count"]},
        "workers": {"min": wishes.least, "max": wishes.most, "idleTimeout": wishes.idle_seconds},
        "flashboot": "FLASHBOOT" if wishes.flashboot else "OFF",
        "timeout": wishes.job_seconds * 1000,
    }
    if wishes.api:
        port = str(VOICES[wishes.api])
        prefix = wishes.api.upper()
        # The load balancer asks /ping, which says 204 while the model is loaded.
        env |= {f"ENABLE_{prefix}": "true", f"{prefix}_HOST": "0.0.0.0", f"{prefix}_PORT": port}
        env |= {"PORT": port, "PORT_HEALTH": port, "HOLD_ON_ERROR": "false"}
        body |= {"scaling": {"type": "REQUEST_COUNT", "requestCount": wishes.requests}, "ports": [f"{port}/http"]}
    else:
        body |= {"scaling": {"type": "QUEUE_DELAY", "queueDelay": wishes.delay_seconds}, "args": "worker"}
    # RunPod asks for its own key before anybody gets here, and a gate would refuse its look at /ping.
    env.pop("ACCESS_TOKEN", None)
    body["env"] = env
    for key in ("registry", "dataCenterIds"):
        if key in pod:
            body[key] = pod[key]
    if floor := pod["gpu"].get("minCudaVersion"):
        body["gpu"]["minCudaVersion"] = floor
    if volume:
        body["networkVolumes"] = [volume]
    schema.check("CreateEndpointRequest", body)
    return body


def check_pools(pools: Sequence[str]) -> None:
    """Refuse pools that RunPod does not have, and more than it takes.

    Raises:
        UsageError: with the pools that there are.
    """
    if unknown := [pool for pool in pools if pool not in POOLS]:
        raise UsageError(f"--pool {', '.join(unknown)} is unknown: choose from {', '.join(POOLS)}")
    if len(pools) > MOST_POOLS:
        raise UsageError(f"{len(pools)} pools, but RunPod takes at most {MOST_POOLS}: leave some out")


def notes(wishes: Serverless, volume: str, model_bytes: int) -> list[str]:
    """Say what a person should know before it is made."""
    found = []
    if wishes.least:
        found.append(f"{wishes.least} workers always run, and cost money even without jobs")
    if model_bytes and not volume:
        found.append(
            f"without --network-volume each worker fetches {model_bytes / 1e9:.1f} GB of models at its start, "
            "which costs money"
        )
    return found
