"""The pod's start as a few steps; what takes no time of its own is named with what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_NAMES = {
    "settings": "settings",
    "gpu": "GPU",
    "storage": "disks",
    "plan": "plan",
    "prepared": "folders",
    "comfyui_exec": "ComfyUI started",
    "comfyui_ready": "ComfyUI ready",
    "models": "models fetched",
}
_MOMENT = 0.1
"""Seconds that a phase must take to be a step of its own."""


@dataclass(frozen=True)
class Step:
    """One or more phases that were over together."""

    what: str
    """What was done."""
    at: float
    """When it was over, seconds from the start."""
    took: float
    """How long after the step before."""


def timeline(phases: Mapping[str, float]) -> list[Step]:
    """Make the steps from when each phase was over, in seconds from the start."""
    order = sorted((float(at), name) for name, at in phases.items())
    steps: list[Step] = []
    names: list[str] = []
    before = 0.0
    for number, (at, name) in enumerate(order):
        names.append(_NAMES.get(name, name))
        if number + 1 == len(order) or order[number + 1][0] - at >= _MOMENT:
            steps.append(Step(", ".join(names), at, at - before))
            names, before = [], at
    return steps
