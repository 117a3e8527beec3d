"""Timings of a worker's startup, printed and kept."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hearmeman.log import log
from hearmeman.state_file import write_json


@dataclass
class Phases:
    """Seconds from the container's start until each part was done."""

    started: float
    """The container's start, on CLOCK_BOOTTIME."""
    report: Path | None = None
    """Where they are kept."""
    done: dict[str, float] = field(default_factory=dict)

    def mark(self, phase: str) -> None:
        """Record that a part is done, print it, and save the timings so far; each part is recorded once."""
        if phase in self.done:
            return
        before = max(self.done.values(), default=0.0)
        now = round(time.clock_gettime(time.CLOCK_BOOTTIME) - self.started, 3)
        self.done[phase] = now
        log("worker.phase_done", phase=phase, seconds=now - before, since_start=now)
        if self.report is not None:
            with suppress(OSError):
                write_json(self.report, {"seconds_since_start": self.done}, durable=False)
