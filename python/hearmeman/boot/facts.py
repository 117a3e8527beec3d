"""Facts about this machine that the boot plan needs; reads much, changes nothing."""

from __future__ import annotations

import errno
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from hearmeman.settings import Settings
from hearmeman.tune.machine import Memory


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
    """An address that ComfyUI is to listen on."""

    host: str
    """One address."""
    port: int
    """The port."""
    problem: str
    """'taken', another reason why it cannot be bound, or empty."""


@dataclass(frozen=True)
class Machine:
    """What the plan is made from, beside the settings."""

    volume_is_mount: bool
    """Whether something is mounted at VOLUME_DIR."""
    places: tuple[Place, ...]
    """The volume first, then what lies elsewhere."""
    listens: tuple[Listen, ...]
    """One per address of COMFYUI_HOST."""
    memory: Memory
    """GPU and RAM."""
    baked_nodes: tuple[str, ...]
    """Absolute paths of the image's custom nodes."""
    volume_nodes: tuple[str, ...]
    """Names in the volume's custom_nodes."""


def gather(settings: Settings, memory: Memory, nodes_dir: Path, comfyui_main: Path) -> Machine:
    """Look at disks, ports and nodes."""
    wanted = {
        "VOLUME_DIR": settings.volume_dir,
        "STATE_DIR": settings.state_path,
        "MODELS_DIR": settings.models_path,
        "COMFYUI_OUTPUT_DIR": settings.output_path,
    }
    # A base directory hides ComfyUI's own custom node, so it is linked like the image's others.
    own = comfyui_main.parent / "custom_nodes" / "websocket_image_save.py"
    baked = [str(path) for path in _entries(nodes_dir)] + ([str(own)] if own.exists() else [])
    hosts = [host.strip() for host in settings.comfyui_host.split(",") if host.strip()]
    return Machine(
        volume_is_mount=os.path.ismount(settings.volume_dir),
        places=tuple(_place(name, Path(path)) for name, path in wanted.items()),
        listens=tuple(Listen(host, settings.comfyui_port, bind_problem(host, settings.comfyui_port)) for host in hosts),
        memory=memory,
        baked_nodes=tuple(baked),
        volume_nodes=tuple(path.name for path in _entries(Path(settings.comfyui_dir) / "custom_nodes")),
    )


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))
    except OSError:
        return []


def _place(variable: str, path: Path) -> Place:
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
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
    try:
        stat = Path("/proc/self/stat").read_text(encoding="utf-8")
    except OSError:
        stat = ""
    return process_started(time.clock_gettime(time.CLOCK_BOOTTIME), stat, os.sysconf("SC_CLK_TCK"))
