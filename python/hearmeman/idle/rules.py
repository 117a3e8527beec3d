"""When a pod is stopped: pure arithmetic on two limits and what was seen of its use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

WARN_SECONDS = 300.0
"""How long before the stop a person is warned; half the limit where that is less."""


@dataclass(frozen=True)
class Limits:
    """What the pod may cost; in seconds, 0 means no limit."""

    idle: float
    """How long it may run unused."""
    longest: float
    """How long it may run at all."""


@dataclass(frozen=True)
class Look:
    """What one look at the pod saw of its use."""

    uses: tuple[str, ...] = ()
    """What goes on now, each in a few words."""
    marks: Mapping[str, object] = field(default_factory=dict)
    """Counters that move with use: one that changed between two looks is a use that began and ended between them."""


@dataclass(frozen=True)
class Clock:
    """The pod's count; seconds of one clock that never goes back."""

    started: float
    """When the count began."""
    used: float
    """When the pod was last seen in use."""


@dataclass(frozen=True)
class Verdict:
    """How long the pod has left."""

    seconds_left: float
    """Until the stop; not positive when it is due."""
    why: str
    """Which limit comes first, as a person says it."""
    unless_used: bool
    """Whether a use of the pod puts the stop off."""
    warn: bool
    """Whether a person is to be warned now."""

    @property
    def due(self) -> bool:
        """Whether the pod is to be stopped."""
        return self.seconds_left <= 0


def moved(before: Look | None, now: Look) -> tuple[str, ...]:
    """Name what was in use at this look, or since the look before."""
    if before is None:
        return now.uses
    changed = (name for name, mark in now.marks.items() if before.marks.get(name, mark) != mark)
    return (*now.uses, *(name for name in changed if name not in now.uses))


def judge(limits: Limits, clock: Clock, now: float) -> Verdict:
    """Say which limit comes first; at least one is set."""
    found = []
    if limits.idle:
        found.append((clock.used + limits.idle - now, f"nobody used it for {limits.idle / 60:g} minutes", limits.idle))
    if limits.longest:
        why = f"it ran for {limits.longest / 60:g} minutes, its limit"
        found.append((clock.started + limits.longest - now, why, limits.longest))
    left, why, limit = min(found)
    return Verdict(left, why, why.startswith("nobody"), left <= min(WARN_SECONDS, limit / 2))
