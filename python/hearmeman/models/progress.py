"""Shows how far a fetch is: bars on a terminal, a line per 5 % in a log, a JSON file for the status page."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hearmeman.log import log
from hearmeman.state_file import write_json
from hearmeman.terminal import Bar, bars

STEP_PERCENT = 5
WINDOW_SECONDS = 15.0
"""Speed is what arrived in this time."""


@dataclass
class Row:
    """One file as it is shown."""

    to: str
    """Its destination."""
    state: str
    """waiting, verifying, fetching, checking, present or failed."""
    size: int
    """Bytes; 0 when unknown."""
    done: int
    """Bytes that are there."""
    problem: str = ""
    """Why it failed."""


@dataclass(frozen=True)
class Totals:
    """All files together."""

    files: int
    present: int
    failed: int
    bytes: int
    done: int
    speed: float
    """Bytes per second."""

    @property
    def percent(self) -> float:
        """How much is done, 0 to 100."""
        return 100.0 * self.done / self.bytes if self.bytes else 100.0

    @property
    def seconds_left(self) -> float | None:
        """Time left at this speed; None when nothing moves."""
        return (self.bytes - self.done) / self.speed if self.speed > 0 else None


class Progress:
    """Reads `rows` as often as it is told to look, and shows them."""

    def __init__(
        self,
        rows: Callable[[], Mapping[str, Row]],
        files: Sequence[Path],
        models: Sequence[str],
        terminal: IO[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rows, self._files, self._models, self._clock = rows, files, models, clock
        self._samples: deque[tuple[float, int, dict[str, int]]] = deque()
        self._started = clock()
        self._written = 0.0
        self._said = -1
        self._bars = bars(terminal, stays=True)
        self._first_done: int | None = None

    def look(self, force: bool = False) -> None:
        """Show the state, at most twice a second."""
        now = self._clock()
        if not force and now - self._written < 0.5:
            return
        self._written = now
        rows = dict(self._rows())
        totals = self._totals(rows, now)
        if self._bars is not None:
            self._bars.draw(_bars(rows, totals))
        else:
            step = int(totals.percent // STEP_PERCENT)
            if step > self._said and totals.bytes:
                self._said = step
                log(
                    "models.progress",
                    percent=int(totals.percent),
                    done=totals.done,
                    of=totals.bytes,
                    mb_per_s=round(totals.speed / 1e6, 1),
                    left=None if totals.seconds_left is None else f"{totals.seconds_left:.0f}s",
                    files=f"{totals.present}/{totals.files}",
                )
        self._write(rows, totals, "fetching")

    def end(self, state: str) -> None:
        """Show the last state and stop."""
        rows = dict(self._rows())
        totals = self._totals(rows, self._clock())
        if self._bars is not None:
            self._bars.draw(_bars(rows, totals))
            self._bars.stop()
        self._write(rows, totals, state)

    def _totals(self, rows: Mapping[str, Row], now: float) -> Totals:
        done = sum(row.done for row in rows.values())
        self._samples.append((now, done, {name: row.done for name, row in rows.items()}))
        while len(self._samples) > 2 and now - self._samples[0][0] > WINDOW_SECONDS:
            self._samples.popleft()
        (then, before, _), elapsed = self._samples[0], now - self._samples[0][0]
        states = [row.state for row in rows.values()]
        return Totals(
            files=len(rows),
            present=states.count("present"),
            failed=states.count("failed"),
            bytes=sum(max(row.size, row.done) for row in rows.values()),
            done=done,
            speed=max(0.0, (done - before) / elapsed) if elapsed > 0 and then < now else 0.0,
        )

    def _speed(self, name: str, row: Row) -> int:
        """Bytes per second of one file."""
        (then, _, before), now = self._samples[0], self._samples[-1][0]
        return round(max(0, row.done - before.get(name, 0)) / (now - then)) if now > then else 0

    def _write(self, rows: Mapping[str, Row], totals: Totals, state: str) -> None:
        left = totals.seconds_left
        content: dict[str, Any] = {
            "state": state,
            "files_total": totals.files,
            "files_present": totals.present,
            "files_failed": totals.failed,
            "bytes_total": totals.bytes,
            "bytes_done": totals.done,
            "bytes_per_second": round(totals.speed),
            "seconds_left": None if left is None else round(left),
            "started": self._started,
            "updated": self._clock(),
            "models": list(self._models),
            "files": {name: {**vars(row), "bytes_per_second": self._speed(name, row)} for name, row in rows.items()},
        }
        for path in self._files:
            # A full disk must not end a fetch that may still free nothing but finish.
            with contextlib.suppress(OSError):
                write_json(path, content, durable=state != "fetching")


def _bars(rows: Mapping[str, Row], totals: Totals) -> dict[str, Bar]:
    """Make a bar for the whole and one for each file on its way."""
    made = {"": Bar(f"{totals.present} of {totals.files} files", totals.done, totals.bytes)}
    for name, row in rows.items():
        if row.state in ("fetching", "checking", "verifying") or (row.state == "waiting" and row.done):
            made[name] = Bar(Path(row.to).name, row.done, row.size or None)
    return made
