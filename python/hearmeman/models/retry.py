"""When to try again: growing pauses, as long as the last byte that arrived is not too long ago."""

from __future__ import annotations

from collections.abc import Callable

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
MOST_CONTRADICTIONS = 5
"""Links in a row that may bring something else than the source states, nothing of the file arriving between them."""


class Retry:
    """The patience that one file is met with."""

    def __init__(self, timeout: float, clock: Callable[[], float]) -> None:
        self.timeout, self.clock = timeout, clock
        self._progressed = clock()
        self._failed_at = -1.0
        self._pause = 0.0
        self._not_before = 0.0
        self.contradictions, self._contradicted_at = 0, -1.0

    def progressed(self) -> None:
        """Note that something arrived."""
        self._progressed = self.clock()

    def resumed(self) -> None:
        """Do not count the time since the last pause ended: it was spent waiting for a connection."""
        idle = self.clock() - max(self._not_before, self._failed_at, self._progressed)
        self._progressed += max(0.0, idle)

    @property
    def silence(self) -> float:
        """Seconds since something arrived."""
        return self.clock() - self._progressed

    @property
    def may_try(self) -> bool:
        """Whether no pause is on."""
        return self.clock() >= self._not_before

    @property
    def exhausted(self) -> bool:
        """Whether nothing has arrived for too long."""
        return self.silence > self.timeout

    def failed(self, wait: float = 0) -> float:
        """Begin a pause, of at least `wait` seconds; 0 if one is on already, since many connections fail at once."""
        now = self.clock()
        if now < self._not_before:
            return 0
        self._pause = FIRST_PAUSE if self._progressed > self._failed_at else min(self._pause * 2, LONGEST_PAUSE)
        self._failed_at = now
        left = self.timeout - (now - self._progressed)
        pause = min(max(self._pause, wait), max(left, 0) + 0.05)
        self._not_before = now + pause
        return pause

    def contradicted(self) -> bool:
        """Count an answer that contradicts the source; True when there were too many, or for too long."""
        if self._progressed > self._contradicted_at:
            self.contradictions = 0
        self.contradictions += 1
        self._contradicted_at = self.clock()
        return self.contradictions >= MOST_CONTRADICTIONS or self.exhausted
