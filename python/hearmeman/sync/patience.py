"""How long to wait after failures: every upload waits while the bucket fails, one tries it out; pure."""

from __future__ import annotations

from dataclasses import dataclass

from hearmeman.sync.failures import Failure

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
LONGEST_PAUSE_AT_STOP = 1.0


def pause_after(attempts: int, stopping: bool = False) -> float:
    """Give the pause in seconds after the `attempts`-th failure in a row, counted from 1."""
    longest = LONGEST_PAUSE_AT_STOP if stopping else LONGEST_PAUSE
    return min(FIRST_PAUSE * 2.0 ** min(attempts - 1, 20), longest)


@dataclass
class Patience:
    """Whether the bucket takes uploads."""

    failure: Failure | None = None
    """Why it does not; None while it does."""
    since: float = 0.0
    """Clock of the first failure in a row."""
    failures: int = 0
    """How many there were in a row."""
    until: float = 0.0
    """Clock before which nothing is tried."""

    def failed(self, failure: Failure, now: float, stopping: bool = False) -> bool:
        """Take in a failure that concerns every file; True if it is a new kind, so that it is to be said."""
        new = self.failure is None or self.failure.kind != failure.kind
        if self.failure is None:
            self.since, self.failures = now, 0
        self.failure = failure
        # Uploads that were under way together fail together: that is one failure.
        if now >= self.until:
            self.failures += 1
            self.until = now + pause_after(self.failures, stopping)
        return new

    def succeeded(self) -> bool:
        """Take in that the bucket answers as it should; True if it did not before."""
        healed = self.failure is not None
        self.failure, self.failures, self.until = None, 0, 0.0
        return healed

    def slots(self, most: int, now: float) -> int:
        """Give how many uploads may be under way: `most`, one to try a failing bucket out, none during a pause."""
        if self.failure is None:
            return most
        return 1 if now >= self.until else 0
