"""Ctrl-C, or another signal, at a chosen moment: to the test's own process while a command runs in it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from support.waiting import wait_for


@contextlib.contextmanager
def ctrl_c(
    moment: Callable[[], object], then: Callable[[], object] = lambda: None, number: int = signal.SIGINT
) -> Iterator[None]:
    """Press it once `moment` holds, then do `then`, such as let go what has kept the command from ending by itself."""

    def press() -> None:
        wait_for(moment, "the moment for Ctrl-C")
        os.kill(os.getpid(), number)
        then()

    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    yield
    thread.join()
