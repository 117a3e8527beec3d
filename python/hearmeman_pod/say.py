"""Says what is going on, on standard error: standard output is for what was asked for."""

import contextlib
import sys


def say(line: str) -> None:
    """Print a line at once."""
    with contextlib.suppress(OSError):  # A closed terminal is no reason to leave a pod behind.
        print(line, file=sys.stderr, flush=True)
