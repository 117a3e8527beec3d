"""Counts how long the pod is unused, warns, and stops it: the count is cleared before, so that a resumed pod begins anew."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hearmeman.idle.activity import to_send
from hearmeman.idle.rest import StopError
from hearmeman.idle.rules import Clock, Limits, Look, Verdict, judge, moved
from hearmeman.log import log
from hearmeman.state_file import read_json, write_json

LOOK_SECONDS = 15.0
DRAIN_SECONDS = 600.0
"""How long outputs that are on their way may delay the stop."""
_PAUSES = (10.0, 30.0, 60.0, 120.0, 300.0)
"""Between tries to stop the pod; the last one again and again."""
AGAIN_SECONDS = 300.0
"""How long RunPod may take to end the pod after it agreed."""


@dataclass(frozen=True)
class Orders:
    """What is to be done, and where it is noted."""

    limits: Limits
    """When."""
    action: str
    """stop or terminate."""
    folder: Path
    """Where the count (clock.json) and what a person sees of it (idle.json) are written."""
    state: Path
    """The pod's state folder, where the sync reports."""
    network_volume: bool
    """Whether the pod's files outlive it."""
    boot_id: str = ""
    """This boot of the machine, which the count's clock belongs to."""


@dataclass(frozen=True)
class World:
    """What the watch is given of the world."""

    look: Callable[[], Look]
    """Sees what is in use."""
    act: Callable[[str], None]
    """Asks RunPod for stop or terminate."""
    clock: Callable[[], float]
    """Seconds that never go back, also while the machine sleeps."""
    wall: Callable[[], float]
    """Unix seconds."""
    sleep: Callable[[float], bool]
    """Waits; true when this process is to end."""


class Watch:
    """Watches one pod until it is stopped."""

    def __init__(self, orders: Orders, world: World) -> None:
        self._orders, self._world = orders, world
        self._clock = self._kept() or self._anew()
        self._seen: Look | None = None
        self._uses: tuple[str, ...] = ()
        self._warned = False
        self._problem = ""

    def run(self) -> None:
        """Look, count and stop, until this process is to end; a count that a person ended by a stop does not go on."""
        limits = self._orders.limits
        log("idle.watching", idle_minutes=limits.idle / 60, max_minutes=limits.longest / 60, action=self._orders.action)
        while True:
            verdict = self.step()
            if verdict.due and self._end(verdict):
                break
            if self._world.sleep(min(LOOK_SECONDS, max(1.0, verdict.seconds_left))):
                break
        self._clear()

    def step(self) -> Verdict:
        """Look once, note it, and warn."""
        seen = self._world.look()
        now = self._world.clock()
        self._uses, self._seen = moved(self._seen, seen), seen
        if self._uses:
            self._clock = replace(self._clock, used=now)
        self._write(self._file, {"boot_id": self._orders.boot_id, **vars(self._clock)})
        verdict = judge(self._orders.limits, self._clock, now)
        if verdict.warn and not self._warned:
            log("idle.warning", action=self._orders.action, seconds=round(verdict.seconds_left), why=verdict.why)
        elif self._warned and not verdict.warn:
            log("idle.in_use", what=", ".join(self._uses))
        self._warned = verdict.warn
        self._show(verdict)
        return verdict

    def _end(self, verdict: Verdict) -> bool:
        """Drain, then stop the pod; true when this process is to end, false when the pod is in use again."""
        action, left, ended = self._drained()
        if ended:
            return True
        if left:
            log("idle.left", files=left, means="they are on the volume, and are sent at the next start")
        tries = 0
        while True:
            if verdict.unless_used and not self.step().due:
                return False
            # Before the stop: a pod that is started again, with what is here, must count from there.
            self._clear()
            try:
                log("idle.stopping", action=action, why=verdict.why)
                self._world.act(action)
            except StopError as error:
                pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
                tries += 1
                self._problem = f"the pod could not be ended ({action}), and still costs money: {error}"
                log("idle.failed", action=action, why=str(error), tries=tries, again_in=pause)
            else:
                pause, self._problem = AGAIN_SECONDS, ""
            self._show(verdict)
            if self._world.sleep(pause):
                return True

    def _drained(self) -> tuple[str, int, bool]:
        """Wait for outputs on their way: (what is done then, files that were not sent, whether this process is to end)."""
        end = self._world.clock() + DRAIN_SECONDS
        while to_send(sync := read_json(self._orders.state / "sync.json")) and self._world.clock() < end:
            if self._world.sleep(LOOK_SECONDS):
                return self._orders.action, 0, True
        left = int(sync.get("backlog_files", 0))
        if left and self._orders.action == "terminate" and not self._orders.network_volume:
            log("idle.kept", files=left, means="they would be lost with the pod: it is stopped, not terminated")
            return "stop", left, False
        return self._orders.action, left, False

    @property
    def _file(self) -> Path:
        return self._orders.folder / "clock.json"

    def _kept(self) -> Clock | None:
        found = read_json(self._file)
        if not found.get("started") or found.get("boot_id") != self._orders.boot_id:
            return None
        now = self._world.clock()
        started, used = float(found["started"]), float(found.get("used", 0))
        return Clock(started, used) if started <= used <= now else None

    def _anew(self) -> Clock:
        now = self._world.clock()
        return Clock(now, now)

    def _clear(self) -> None:
        # Removed, since that works on a full disk too, and for certain, before the machine goes.
        self._file.unlink(missing_ok=True)
        folder = os.open(self._orders.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @staticmethod
    def _write(path: Path, content: Mapping[str, object]) -> None:
        # A full disk is no reason to let the pod run on.
        with contextlib.suppress(OSError):
            write_json(path, content, durable=False)

    def _show(self, verdict: Verdict) -> None:
        """Write what `hearmeman status` and the page show."""
        left = max(0.0, verdict.seconds_left)
        shown = {
            "action": self._orders.action,
            "uses": list(self._uses),
            "ends_at": round(self._world.wall() + left),
            "why": verdict.why,
            "unless_used": verdict.unless_used,
            "warns": verdict.warn,
            "problem": self._problem,
        }
        self._write(self._orders.folder / "idle.json", shown)


def boot_time() -> float:
    """Give seconds since the machine's start."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
