"""Looks into a running pod from outside: its processes, and what their wrappers say of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.pod import Pod


def members(pod: Pod) -> Iterator[tuple[int, int]]:
    """Every process of the pod: its pid here and its pid inside."""
    inside = str(Path(f"/proc/{pod.init}/ns/pid").readlink())
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if namespace(folder) == inside:
                line = next(x for x in (folder / "status").read_text().splitlines() if x.startswith("NSpid:"))
                yield int(folder.name), int(line.split()[-1])


def report(pod: Pod, name: str) -> dict[str, Any]:
    """What the wrapper says of its process."""
    path = Path(f"/proc/{pod.init}/root/run/hearmeman/keep/{name}.json")
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    return {}


def here(pod: Pod, pid_inside: int) -> int:
    """The pid here of a process in the pod."""
    return next(outer for outer, inner in members(pod) if inner == pid_inside)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def namespace(folder: Path) -> str:
    """Which pid namespace a folder of /proc belongs to."""
    try:
        return str((folder / "ns/pid").readlink())
    except OSError:
        return ""
