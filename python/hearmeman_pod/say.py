"""Says what is going on, on standard error: standard output is for what was asked for. And asks before what cannot be undone."""

import contextlib
import sys
import time

from hearmeman import terminal
from hearmeman_pod.errors import UsageError


def say(line: str) -> None:
    """Print a line at once."""
    with contextlib.suppress(OSError):  # A closed terminal is no reason to leave a pod behind.
        print(line, file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Print what a person should know, a sentence, in lines of the terminal."""
    line = f"note: {text}"
    say("\n".join(terminal.wrapped(line)) if sys.stderr.isatty() else line)


class Talk:
    """Says how far a file is, now and then."""

    PAUSE = 2.0
    """Seconds between two lines."""

    def __init__(self, name: str, size: int) -> None:
        """`size` is in bytes; 0 where it is not known."""
        self._name, self._size = name, size
        self._began = self._last = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int) -> None:
        """Say that `done` bytes have passed."""
        now = time.monotonic()
        self._first = done if self._first is None else self._first
        if now - self._last < self.PAUSE or (self._size and done >= self._size):
            return
        self._last = now
        far = f"{100 * done // self._size} % of {terminal.size(self._size)}" if self._size else terminal.size(done)
        speed = terminal.rate((done - self._first) / (now - self._began))
        say(terminal.plain(f"{self._name}: {far}, {speed}"))


def agreed(what: str, yes: bool) -> bool:
    """Ask whether to do `what`, a sentence; with `yes` nobody is asked.

    Raises:
        UsageError: nobody is there to ask.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(f"{what} Nothing was done: give --yes to do it")
    print(f"{what} Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    say("nothing was done")
    return False
