"""How quick a connection is beside the others, and whether what is left of its range should go to another one.

There is no lowest speed in bytes per second, since a person's whole link may be slow: a connection is too slow when the
others would bring its rest several times as soon. 300 MB, one of 16 connections at 32 KB/s: 6.1 s, and 144 s without this
(tests/bench/models.py, "one slow connection", on a busy machine).
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

WINDOW_SECONDS = 4.0
"""Speed is what arrived in this time; a connection is not judged before."""
TIMES = 3.0
"""How many times as long as another one it must need."""
SPARED_SECONDS = 5.0
"""What is over sooner than this is left alone."""
START_SECONDS = 1.0
"""What a new connection needs before its first byte."""
LOWEST = 64 * 1024.0
"""Bytes per second that a new connection is expected to bring where there is nothing to compare with."""

LEAST = 1024**2
"""Bytes of which a speed can be told."""


class Pace:
    """The speed of one connection. `patience` grows with each one that took over the same bytes."""

    def __init__(self, position: int, now: float, patience: float = WINDOW_SECONDS) -> None:
        self.patience = patience
        self.rate: float | None = None
        """Bytes per second of the last whole window; None before there was one."""
        self._position, self._since = position, now
        self._first, self._began = position, now

    def average(self, position: int, now: float) -> float | None:
        """Give the speed from its beginning to now, in bytes per second; None where it brought too little to tell."""
        arrived, elapsed = position - self._first, now - self._began
        return arrived / elapsed if arrived >= LEAST and elapsed > 0 else None

    def look(self, position: int, now: float) -> None:
        """Take in how far it is."""
        elapsed = now - self._since
        if elapsed >= self.patience:
            self.rate = (position - self._position) / elapsed
            self._position, self._since = position, now

    def is_slow(self, left: int, others: Iterable[float]) -> bool:
        """Tell whether a new connection, as quick as the `others` are (bytes per second), should bring the rest."""
        if self.rate is None:
            return False
        usual = max(median(list(others) or [LOWEST]), 1.0)
        return left / max(self.rate, 1.0) > TIMES * (left / usual + START_SECONDS) + SPARED_SECONDS
