"""What a process and its children hold of memory and take of processor time, as Linux counts it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def children(process: int) -> list[int]:
    """The processes that a process has started, on any of its threads."""
    found = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # The thread has ended since.
            found += [int(pid) for pid in file.read_text().split()]
    return found


def resident(process: int) -> tuple[float, float]:
    """MB of memory of a process, and of its children."""
    own, *others = [_megabytes(pid) for pid in (process, *children(process))]
    return own, sum(others)


def processor_seconds(process: int) -> float:
    """Seconds of processor time that a process and its children have used."""
    total = 0
    for pid in (process, *children(process)):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICK


def _megabytes(process: int) -> float:
    """0 for a process that has ended."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{process}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024
    return 0.0
