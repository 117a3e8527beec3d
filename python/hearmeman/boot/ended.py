"""Why a process ended: its exit code in words, and whether the kernel ended it because memory ran out."""

from __future__ import annotations

import signal
from pathlib import Path

_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
OUT_OF_MEMORY = (
    "the kernel ended it because the container's memory (RAM, not the GPU's) ran out: use a pod with more RAM, "
    "a smaller or more strongly quantised model, or fewer voices beside it"
)


def oom_kills(root: Path = Path("/")) -> int:
    """Count the processes that the kernel ended in this container's cgroup for want of memory; version 2 or 1."""
    base = root / "sys/fs/cgroup"
    own = [line.split(":", 2)[2].strip("/") for line in _read(root / "proc/self/cgroup").splitlines() if ":" in line]
    places = [base, base / "memory", *(base / path for path in own), *(base / "memory" / path for path in own)]
    texts = [_read(place / name) for place in places for name in ("memory.events", "memory.oom_control")]
    counts = [line.split() for text in texts for line in text.splitlines()]
    return max((int(words[1]) for words in counts if words[:1] == ["oom_kill"] and words[1].isdigit()), default=0)


def why(code: int, killed_before: int, killed_after: int) -> str:
    """Say why a process ended with `code`; nothing where the code says it all."""
    if code in _KILLED and killed_after > killed_before:
        return OUT_OF_MEMORY
    if code in _KILLED:
        return "it was killed (SIGKILL): the system may be out of memory, or somebody ended it"
    if code < 0:
        try:
            return f"it was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"it was ended by signal {-code}"
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
