"""Facts about this machine that the boot plan needs; reads much, changes nothing."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hearmeman.boot.owners import probe
from hearmeman.door.ports import doors
from hearmeman.settings import Settings
from hearmeman.storage import ROOT_MOUNT, Mount, mount_of, nearest
from hearmeman.tune.machine import Memory
from hearmeman.users import SETPRIV, why_not_separate


@dataclass(frozen=True)
class Place:
    """A folder that the pod writes to."""

    variable: str
    """The variable that names it."""
    path: str
    """Where it is or will be."""
    free_bytes: int
    """What its filesystem has left."""
    problem: str
    """Why it cannot be written; empty if it can."""


@dataclass(frozen=True)
class Listen:
    """An address that the pod is to listen on."""

    host: str
    """One address."""
    port: int
    """The port."""
    problem: str
    """'taken', another reason why it cannot be bound, or empty."""
    variable: str = "COMFYUI_PORT"
    """The variable that names the port."""
    essential: bool = True
    """Whether the pod is of no use without it."""


@dataclass(frozen=True)
class Machine:
    """What the plan is made from, beside the settings."""

    volume_is_mount: bool
    """Whether something is mounted at VOLUME_DIR."""
    places: tuple[Place, ...]
    """The volume first, then what lies elsewhere."""
    listens: tuple[Listen, ...]
    """One per address and port."""
    memory: Memory
    """GPU and RAM."""
    baked_nodes: tuple[str, ...]
    """Absolute paths of the image's custom nodes."""
    volume_nodes: tuple[str, ...]
    """Names in the volume's custom_nodes."""
    volume: Mount = ROOT_MOUNT
    """What VOLUME_DIR lies on."""
    volume_used: float = 0.0
    """How full its filesystem is, 0 to 1."""
    not_separate: str = ""
    """Why processes cannot be given users of their own; empty if they can."""
    ownerless: str = ""
    """Why the volume keeps no owners, so that ComfyUI can write all of it; empty if it keeps them."""
    volume_repositories: tuple[str, ...] = ()
    """Custom nodes on the volume that git can update."""


def gather(settings: Settings, memory: Memory, nodes_dir: Path, comfyui_main: Path, running: bool = False) -> Machine:
    """Look at disks, ports and nodes; where a pod is `running` already, that a port is taken is as it should be."""
    wanted = {
        "VOLUME_DIR": settings.volume_dir,
        "STATE_DIR": settings.state_path,
        "MODELS_DIR": settings.models_path,
        "COMFYUI_OUTPUT_DIR": settings.output_path,
    }
    # A base directory hides ComfyUI's own custom node, so it is linked like the image's others.
    own = comfyui_main.parent / "custom_nodes" / "websocket_image_save.py"
    baked = [str(path) for path in _entries(nodes_dir)] + ([str(own)] if own.exists() else [])
    theirs = _entries(Path(settings.comfyui_dir) / "custom_nodes")
    volume = Path(settings.volume_dir)
    mounted = mount_of(volume)
    not_separate, ownerless = _separation(volume)
    return Machine(
        # os.path.ismount does not see a bind mount of the same disk.
        volume_is_mount=mounted.kind != "" and mounted.point == os.path.realpath(volume),
        places=tuple(_place(name, Path(path)) for name, path in wanted.items()),
        listens=tuple(
            replace(listen, problem="") if running and listen.problem == "taken" else listen
            for listen in _listens(settings)
        ),
        memory=memory,
        baked_nodes=tuple(baked),
        volume_nodes=tuple(path.name for path in theirs),
        volume=mounted,
        volume_used=_used(volume),
        not_separate=not_separate,
        ownerless=ownerless,
        volume_repositories=tuple(str(path) for path in theirs if (path / ".git").exists()),
    )


def _separation(volume: Path) -> tuple[str, str]:
    """Why processes cannot have users of their own, and why the volume keeps no owners."""
    proc = Path("/proc/self")
    texts = (_text(proc / name) for name in ("status", "uid_map", "gid_map"))
    status, uid_map, gid_map = texts
    why = why_not_separate(status, uid_map, Path(SETPRIV).exists(), gid_map)
    if why:
        return why, ""
    answer = probe(volume)
    if answer.refused and not answer.shared:
        return f"{volume} does not store file owners ({answer.refused}), so only root could write there", ""
    return "", answer.refused


def _listens(settings: Settings) -> Iterator[Listen]:
    for door in doors(settings):
        for host in door.hosts:
            problem = bind_problem(host, door.port)
            yield Listen(host, door.port, problem, door.variable, door.essential)
        if door.inner:
            variable = door.variable.replace("_PORT", "_INNER_PORT")
            yield Listen("127.0.0.1", door.inner, bind_problem("127.0.0.1", door.inner), variable, door.essential)


def _used(path: Path) -> float:
    try:
        found = os.statvfs(nearest(path))
    except OSError:
        return 0.0
    return 1 - found.f_bavail / found.f_blocks if found.f_blocks else 0.0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))
    except OSError:
        return []


def _place(variable: str, path: Path) -> Place:
    there = nearest(path)
    free, problem = 0, ""
    try:
        free = os.statvfs(there).f_bavail * os.statvfs(there).f_frsize
        if not there.is_dir():
            problem = f"{there} is not a folder"
        elif not os.access(there, os.W_OK | os.X_OK):
            problem = f"{there} is not writable"
    except OSError as error:
        problem = f"{there}: {error.strerror}"
    return Place(variable, str(path), free, problem)


def bind_problem(host: str, port: int) -> str:
    """Try to bind, as ComfyUI will; 'taken', another reason, or empty."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        return "taken" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
    return ""


def process_started(now: float, stat: str, ticks: int) -> float:
    """Read this process's start (CLOCK_BOOTTIME seconds) from /proc/self/stat; `now` where that cannot be right."""
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20:
        return now
    started = int(fields[19]) / ticks
    return started if 0 <= now - started < 60 else now


def boot_started() -> float:
    """Give the entrypoint's start as CLOCK_BOOTTIME seconds, the interpreter's own start-up included."""
    stat = _text(Path("/proc/self/stat"))
    return process_started(time.clock_gettime(time.CLOCK_BOOTTIME), stat, os.sysconf("SC_CLK_TCK"))
