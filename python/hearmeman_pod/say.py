"""Says what is going on, on standard error: standard output is for what was asked for. And asks before what cannot be undone."""

import contextlib
import sys

from hearmeman_pod.errors import UsageError


def say(line: str) -> None:
    """Print a line at once."""
    with contextlib.suppress(OSError):  # A closed terminal is no reason to leave a pod behind.
        print(line, file=sys.stderr, flush=True)


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
