"""What this container uses: processor and memory by its cgroup (the host's numbers are others'), GPUs by NVML, disks."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hearmeman.storage import mount_of
from hearmeman.tune.machine import host_ram, memory_limit

_GROUP = Path("sys/fs/cgroup")


@dataclass(frozen=True)
class Processor:
    """The container's processor time."""

    seconds: float | None
    """Processor seconds that it has used so far; None where no cgroup counts them."""
    cores: float
    """Cores that it may use."""


@dataclass(frozen=True)
class Ram:
    """The container's memory in bytes."""

    used: int | None
    """What it uses, without files that the kernel merely keeps; None where no cgroup counts it."""
    limit: int
    """What it may use."""


@dataclass(frozen=True)
class GpuUse:
    """One GPU now."""

    name: str
    """The card's name."""
    percent: int | None
    """How much of the time it computes, 0 to 100."""
    used: int
    """Bytes of its memory in use."""
    total: int
    """Bytes of its memory."""
    celsius: int | None
    """Its temperature."""
    watts: float | None
    """What it draws."""


@dataclass(frozen=True)
class Disk:
    """One filesystem that the pod writes to."""

    path: str
    """Where it is mounted."""
    what: str
    """What it is for a person: volume or container disk."""
    used: int
    """Bytes in use."""
    total: int
    """Bytes in all."""
    free: int
    """Bytes that may still be written."""


def processor(root: Path = Path("/")) -> Processor:
    """Read the container's processor time, cgroup version 2 or 1."""
    for folder in _folders(root, ""):
        stat = _pairs(_read(folder / "cpu.stat"))
        if "usage_usec" in stat:
            quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
            return Processor(stat["usage_usec"] / 1e6, _cores(quota, period))
    for folder in _folders(root, "cpuacct"):
        used = _read(folder / "cpuacct.usage").strip()
        if used.isdigit():
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            limits = [[_read(there / name).strip() for name in names] for there in _folders(root, "cpu")]
            quota, period = next((limit for limit in limits if limit[0]), ("", ""))
            return Processor(int(used) / 1e9, _cores(quota, period))
    return Processor(None, _cores("", ""))


def _folders(root: Path, controller: str) -> list[Path]:
    """Give where this container's numbers may be: its own folder, then the hierarchy's top; version 2 is controller ""."""
    base = root / _GROUP / controller
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if controller in (names.split(",") if names else [""]):
            parts = [part for part in path.split("/") if part not in ("", "..")]
            # Where the container has its own view, the path is the host's and leads nowhere.
            return [base.joinpath(*parts), base]
    return [base]


def _cores(quota: str, period: str) -> float:
    there = float(len(os.sched_getaffinity(0)))
    limited = quota.isdigit() and period.isdigit() and int(period) > 0
    return min(there, int(quota) / int(period)) if limited else there


def ram(root: Path = Path("/")) -> Ram:
    """Read the container's memory, cgroup version 2 or 1."""
    limit, host = memory_limit(root), host_ram(root)
    allowed = min(filter(None, (limit, host)), default=0)
    for controller, current, cached in (
        ("", "memory.current", "inactive_file"),
        ("memory", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for folder in _folders(root, controller):
            text = _read(folder / current).strip()
            if text.isdigit():
                # As `docker stats` counts it: files that the kernel can drop at once are no use of memory.
                return Ram(max(0, int(text) - _pairs(_read(folder / "memory.stat")).get(cached, 0)), allowed)
    return Ram(None, allowed)


def disks(places: Iterable[tuple[str, str]]) -> list[Disk]:
    """Ask the filesystems of (path, what it is); one that holds several is shown once."""
    found: dict[int, Disk] = {}
    for path, what in places:
        with contextlib.suppress(OSError):
            seen, device = os.statvfs(path), Path(path).stat().st_dev
            total, free = seen.f_blocks * seen.f_frsize, seen.f_bavail * seen.f_frsize
            if total:
                used = total - seen.f_bfree * seen.f_frsize
                point = mount_of(Path(path)).point
                found.setdefault(device, Disk(path if point == "/" else point, what, used, total, free))
    return list(found.values())


class Gpus:
    """Asks NVML again and again; a driver that does not answer makes an empty list."""

    def __init__(self) -> None:
        self._ready: bool | None = None

    def look(self) -> list[GpuUse]:
        """Give every GPU's use now."""
        try:
            import pynvml

            if self._ready is None:
                self._ready = False
                pynvml.nvmlInit()
                self._ready = True
            if not self._ready:
                return []
            return [self._one(pynvml, pynvml.nvmlDeviceGetHandleByIndex(n)) for n in range(pynvml.nvmlDeviceGetCount())]
        except Exception:  # Every failure of NVML, and a machine without it: a page without a GPU is still a page.
            return []

    @staticmethod
    def _one(nvml: Any, card: Any) -> GpuUse:
        def asked(call: Any) -> Any:
            # A MIG slice, or an older card, has no such number.
            try:
                return call()
            except nvml.NVMLError:
                return None

        memory = nvml.nvmlDeviceGetMemoryInfo(card)
        rates = asked(lambda: nvml.nvmlDeviceGetUtilizationRates(card))
        milliwatts = asked(lambda: nvml.nvmlDeviceGetPowerUsage(card))
        return GpuUse(
            name=str(nvml.nvmlDeviceGetName(card)),
            percent=None if rates is None else int(rates.gpu),
            used=int(memory.used),
            total=int(memory.total),
            celsius=asked(lambda: int(nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU))),
            watts=None if milliwatts is None else milliwatts / 1000,
        )


class Meter:
    """Looks at the machine again and again, since a share of the processor is a difference of two looks."""

    def __init__(self, root: Path = Path("/"), clock: Any = time.monotonic) -> None:
        self._root, self._clock, self._gpus = root, clock, Gpus()
        self._before: tuple[float, float] | None = None

    def look(self, places: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """Give processor, memory, GPUs and disks as JSON values; a share of the processor from the second look on."""
        now, cpu, memory = self._clock(), processor(self._root), ram(self._root)
        share = None
        if cpu.seconds is not None:
            if self._before is not None and now > self._before[0]:
                share = max(0.0, (cpu.seconds - self._before[1]) / (now - self._before[0]))
            self._before = (now, cpu.seconds)
        return {
            "cpu": {**asdict(cpu), "cores_used": None if share is None else round(share, 2)},
            "ram": asdict(memory),
            "gpus": [asdict(gpu) for gpu in self._gpus.look()],
            "disks": [asdict(disk) for disk in disks(places)],
        }


def _pairs(text: str) -> dict[str, int]:
    words = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdigit()}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
