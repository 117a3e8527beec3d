"""One process of the pod, as the plan describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hearmeman.users import ROOT, User


@dataclass(frozen=True)
class Process:
    """One process of the pod."""

    name: str
    """Its name in logs and in `hearmeman status`."""
    argv: tuple[str, ...]
    """The command."""
    env: Mapping[str, str]
    """Its environment without secrets."""
    secrets: Mapping[str, str]
    """Secret variables that it alone is given -> the name that it knows them by."""
    stop_stage: int
    """Processes of stage 1 are stopped first; those of the next when all of it have ended."""
    stop_seconds: float
    """Seconds between SIGTERM and SIGKILL."""
    once: bool = False
    """Whether it ends by itself."""
    after: tuple[str, ...] = ()
    """Processes that must have ended before this one starts, however they ended."""
    needs: tuple[str, ...] = ()
    """Processes that must have ended with 0 before this one starts."""
    directory: str = "/"
    """Where it is started."""
    user: User = field(default=ROOT)
    """Whom it runs as."""
    first: tuple[str, ...] = ()
    """Words put before the command where it has a user of its own: root's work before it."""
    notes: str = ""
    """Regular expression of lines of its output that `hearmeman status` is to know of."""
    oom_score: int = 0
    """How much sooner than others the kernel ends it when memory runs out, 0 to 1000."""
