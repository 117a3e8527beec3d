"""Advice after a run that ComfyUI refused or did not finish; pure."""

from __future__ import annotations

from collections.abc import Sequence

from hearmeman.workflows.answers import RefusedError, RunFailedError
from hearmeman.workflows.library import Graph, Workflow
from hearmeman.workflows.schema import Schema

_SIZES = ("frames", "width", "height", "count", "resolution", "size")
"""Parameters that affect a run's memory use, the most effective first."""
_MEMORY = ("out of memory", "allocation on device", "cublas_status_alloc_failed", "defaultcpuallocator")
_DISK = ("no space left on device", "disk quota exceeded", "errno 28", "errno 122")


def for_failure(error: RunFailedError, workflow: Workflow, graph: Graph) -> str:
    """A sentence on what to change; empty if nothing is known."""
    said = f"{error.exception_type} {error}".lower()
    if "memoryerror" in said or any(words in said for words in _MEMORY):
        ways = [
            f"{name} (now {graph[node]['inputs'][key]})"
            for name in _SIZES
            if name in workflow.inputs
            for node, key in workflow.inputs[name].places[:1]
            if node in graph and isinstance(graph[node]["inputs"].get(key), int | float)
        ]
        lower = f"lower {_listed(ways)}" if ways else "make the picture or the film smaller"
        variants = [name for name in ("model", "memory", "blocks") if name in (*workflow.choices, *workflow.inputs)]
        other = (
            f"; or choose another {_listed(variants)}: `hearmeman workflows show {workflow.name}`" if variants else ""
        )
        return f"memory ran out: {lower}{other}; or set GPU_MEMORY_MODE=sequential_cpu_offload, or take a larger GPU"
    if any(words in said for words in _DISK):
        return (
            "the pod's disk is full: `hearmeman status` shows it; outputs that are in the bucket are removed with "
            "SYNC_KEEP_LOCAL_GB, models with `hearmeman models prune`"
        )
    return ""


def for_refusal(error: RefusedError, schema: Schema, missing: Sequence[str]) -> str:
    """A sentence on what to change; `missing` are models that are not on the disk."""
    node = schema.nodes.get(error.class_type, {})
    pack = str(node.get("module", ""))
    if pack.startswith("custom_nodes."):
        return f"{error.class_type} comes with {pack.removeprefix('custom_nodes.')}: use an image that has it"
    if error.class_type and not node:
        return f"no pack of the image has {error.class_type}: add its pack to the volume (docs/pod.md)"
    if missing:
        names = " ".join(missing)
        return f"models are missing: `hearmeman models fetch {names}`, or the same command with --fetch"
    return ""


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
