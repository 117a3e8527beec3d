"""Waiting for what another process or thread does: for a condition, never for a time in which it should be done."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 180.0
"""Seconds that anything may take on a busy machine; only a test that fails waits so long."""


def wait_for(
    condition: Callable[[], object],
    what: str,
    seconds: float = PATIENCE,
    over: Callable[[], bool] = lambda: False,
    said: Callable[[], str] = lambda: "",
) -> None:
    """Wait until `condition` holds.

    Raises:
        TimeoutError: it does not within `seconds`, or `over` tells that nothing will change any more; with what was `said`.
    """
    end = time.monotonic() + seconds
    while True:
        # Asked before the condition: what was done just before the end counts.
        ended = over()
        if condition():
            return
        if ended or time.monotonic() > end:
            why = "it ended" if ended else f"not within {seconds:.0f} s"
            raise TimeoutError(f"waiting for {what}: {why}; it printed:\n{said()}")
        time.sleep(0.02)
