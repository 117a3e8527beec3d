"""Checks whether ComfyUI's machine has enough RAM for a load that would otherwise kill its process without a message."""

from __future__ import annotations

from hearmeman.errors import HearmemanError
from hearmeman.tune.machine import memory_limit
from hearmeman.workflows.client import Client
from hearmeman.workflows.library import Workflow


class MemoryTooSmallError(HearmemanError):
    """The workflow's models do not fit into RAM; nothing was sent."""


def check(workflow: Workflow, free: float, limit: float | None) -> None:
    """Compare what the workflow needs with `free` bytes of RAM and the container's `limit`, None if there is none.

    Raises:
        MemoryTooSmallError: there is less; says how much, and what to do.
    """
    has = min(free, limit) if limit is not None else free
    if has >= workflow.ram_gb * 1e9:
        return
    raise MemoryTooSmallError(
        f"{workflow.name} needs {workflow.ram_gb:g} GB of RAM free while it loads its models, and "
        f"{has / 1e9:.0f} GB are: "
        "the system would kill ComfyUI without a word. Nothing was sent. Take a pod with more RAM, or free what is "
        f"loaded with `hearmeman restart comfyui`; `hearmeman workflows show {workflow.name}` says what else there is"
    )


async def check_machine(client: Client, workflow: Workflow, is_here: bool) -> None:
    """Ask ComfyUI how much RAM is free and compare; on the same machine the container's limit counts too.

    Raises:
        MemoryTooSmallError: there is less than the workflow wants.
        HearmemanError: ComfyUI does not answer.
    """
    if not workflow.ram_gb:
        return
    stats = await client.get_object("/system_stats")
    free = float(stats.get("system", {}).get("ram_free", 0))
    check(workflow, free, memory_limit() if is_here else None)
