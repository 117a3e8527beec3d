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
        self.contradictions = 0
        """How many there were since something arrived."""
        self._progressed = clock()
        self._tried_at = self._progressed
        self._pause = 0.0
        self._not_before = 0.0

    def progressed(self) -> None:
        """Note that something arrived."""
        self._progressed = self._tried_at = self.clock()
        self.contradictions, self._pause = 0, 0.0

    def resumed(self) -> None:
        """Do not count the time since it could have been tried again: it was spent waiting for a free connection."""
        now = self.clock()
        self._progressed += max(0.0, now - max(self._not_before, self._tried_at))
        self._tried_at = now

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
        self._pause = min(self._pause * 2, LONGEST_PAUSE) or FIRST_PAUSE
        self._tried_at = now
        left = self.timeout - (now - self._progressed)
        pause = min(max(self._pause, wait), max(left, 0) + 0.05)
        self._not_before = now + pause
        return pause

    def contradicted(self) -> bool:
        """Count an answer that contradicts the source; True when there were too many, or for too long."""
        self.contradictions += 1
        self._tried_at = self.clock()
        return self.contradictions >= MOST_CONTRADICTIONS or self.exhausted
