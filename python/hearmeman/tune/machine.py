"""Facts that the tuner needs: GPUs and driver as NVML sees them, memory limit, RAM, where the models lie."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

from hearmeman.storage import ROOT_MOUNT, Mount, mount_of

MIB = 1024**2


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG slice of it."""

    name: str
    """The card's name."""
    vram_mib: int
    """Its whole memory in MiB."""


@dataclass(frozen=True)
class Memory:
    """What this container has to compute with."""

    gpus: tuple[Gpu, ...]
    """In NVML's order; ComfyUI uses the first."""
    gpu_problem: str
    """Why no GPU was seen; empty if one was."""
    limit_bytes: int | None
    """The container's memory limit; None when there is none."""
    host_bytes: int
    """The host's RAM."""
    driver: str = ""
    """The NVIDIA driver's version, such as 570.86.15; empty without one."""
    cuda: tuple[int, int] | None = None
    """The newest CUDA version that the driver can run."""
    models: Mount = ROOT_MOUNT
    """What MODELS_DIR lies on."""

    @property
    def ram_bytes(self) -> int:
        """What may be used: the smaller of limit and RAM."""
        return self.limit_bytes if self.limit_bytes is not None and self.is_limited else self.host_bytes

    @property
    def is_limited(self) -> bool:
        """Whether the container may use less than the host has."""
        return self.limit_bytes is not None and (self.limit_bytes < self.host_bytes or not self.host_bytes)


@dataclass(frozen=True)
class Nvidia:
    """What NVML says."""

    gpus: tuple[Gpu, ...] = ()
    """The GPUs of this container."""
    problem: str = ""
    """Why there are none."""
    driver: str = ""
    """The driver's version."""
    cuda: tuple[int, int] | None = None
    """The newest CUDA version that it can run."""


def gather(models_dir: str = "/", root: Path = Path("/")) -> Memory:
    """Ask the machine; `root` is where proc and sys are."""
    seen = nvidia()
    mount = mount_of(Path(models_dir), root)
    return Memory(seen.gpus, seen.problem, memory_limit(root), host_ram(root), seen.driver, seen.cuda, mount)


def nvidia() -> Nvidia:
    """Ask NVML; a reason instead where it does not answer."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return Nvidia(problem="the NVIDIA driver's libnvidia-ml.so.1 is not in this container")
    # After the probe, since most machines without a GPU need not pay for this import.
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Nvidia(problem=f"the NVIDIA driver does not answer ({error})")
    driver, cuda = "", None
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        number = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        cuda = (number // 1000, number % 1000 // 10)
        gpus = tuple(gpu for index in range(pynvml.nvmlDeviceGetCount()) for gpu in _gpus_of(index))
    except pynvml.NVMLError as error:
        return Nvidia((), f"the NVIDIA driver gives no memory size ({error})", driver, cuda)
    finally:
        pynvml.nvmlShutdown()
    return Nvidia(gpus, "" if gpus else "the NVIDIA driver lists no GPU for this container", driver, cuda)


def _gpus_of(index: int) -> list[Gpu]:
    import pynvml

    card = pynvml.nvmlDeviceGetHandleByIndex(index)
    name = str(pynvml.nvmlDeviceGetName(card))
    handles = [card]
    try:
        if pynvml.nvmlDeviceGetMigMode(card)[0] == pynvml.NVML_DEVICE_MIG_ENABLE:
            handles = _slices(card)
    except pynvml.NVMLError_NotSupported:
        pass  # A card that knows no MIG is one whole GPU.
    return [Gpu(name, int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) // MIB) for handle in handles]


def _slices(card: object) -> list[object]:
    import pynvml

    found = []
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(card)):
        try:
            found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, index))
        except pynvml.NVMLError_NotFound:
            break
    return found


def memory_limit(root: Path = Path("/")) -> int | None:
    """Read the cgroup's memory limit in bytes, version 2 or 1; None when it is unlimited."""
    limits = []
    base = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            limits += _limits(base, path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(base / "memory", path, "memory.limit_in_bytes")
    limits += _limits(base, "/", "memory.max") + _limits(base / "memory", "/", "memory.limit_in_bytes")
    # Version 1 writes "no limit" as a number near 2**63.
    return min((limit for limit in limits if limit < 2**60), default=None)


def _limits(base: Path, path: str, name: str) -> list[int]:
    parts = [part for part in path.split("/") if part not in ("", "..")]
    texts = (_read(base.joinpath(*parts[:count], name)).strip() for count in range(len(parts) + 1))
    return [int(text) for text in texts if text.isdigit()]


def host_ram(root: Path = Path("/")) -> int:
    """Read the host's RAM in bytes; 0 when /proc/meminfo does not say."""
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
