"""GPU, memory limit and RAM to tier, memory mode and ComfyUI arguments, each with its reason; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hearmeman.tune.flags import Flag, names
from hearmeman.tune.machine import Memory

GIB = 1024**3

# Cards report less than their label: with ECC a 16, 24 or 48 GB card shows 93.75 % of it.
TOLERANCE = 0.07

ROWS: tuple[tuple[int, str, str, tuple[str, ...]], ...] = (
    (48, "datacenter", "full", ()),
    (24, "prosumer", "model_cpu_offload", ()),
    (16, "consumer", "model_cpu_offload", ()),
    (12, "consumer", "sequential_cpu_offload", ()),
    (8, "consumer", "sequential_cpu_offload", ("--lowvram",)),
    (0, "consumer", "sequential_cpu_offload", ("--lowvram", "--cpu-vae")),
)
"""Lower bound in GB of VRAM (inclusive) -> tier, memory mode, arguments; precision is left to ComfyUI."""

PINNED_RAM_FLOOR_GIB = 24
"""With less RAM than this, memory that is pinned for transfers may get the container killed."""

_ORDER = ("consumer", "prosumer", "datacenter")


@dataclass(frozen=True)
class Tuning:
    """What the tuner chose."""

    tier: str
    """consumer, prosumer or datacenter."""
    memory_mode: str
    """full, model_cpu_offload, sequential_cpu_offload, or cpu without a GPU."""
    arguments: tuple[str, ...]
    """The whole list for ComfyUI, a person's own included."""
    reasons: Mapping[str, str]
    """'tier', 'memory_mode' and each argument that the tuner gave or left out -> why, one line."""
    warnings: tuple[str, ...]
    """What a person should know."""


def row_for(vram_mib: int) -> tuple[int, str, str, tuple[str, ...]]:
    """Find the row whose lower bound this much VRAM reaches."""
    return next(row for row in ROWS if vram_mib >= row[0] * 1024 * (1 - TOLERANCE))


def tune(
    memory: Memory, flags: Mapping[str, Flag], tier: str = "auto", mode: str = "auto", own: tuple[str, ...] = ()
) -> Tuning:
    """Choose for this machine; `tier`, `mode` and `own` (checked COMFYUI_ARGS) are a person's wishes and win."""
    reasons: dict[str, str] = {}
    warnings: list[str] = []
    if memory.gpus:
        arguments, chosen_tier, chosen_mode = _with_gpu(memory, tier, mode, reasons, warnings)
    else:
        warnings.append(f"no GPU seen: {memory.gpu_problem}; ComfyUI runs on the CPU, which is very slow")
        arguments, chosen_mode = ["--cpu"], "cpu"
        chosen_tier = "consumer" if tier == "auto" else tier
        reasons["tier"] = "no GPU seen" if tier == "auto" else f"GPU_TIER={tier}"
        reasons["memory_mode"] = "no GPU seen"
        reasons["--cpu"] = "no GPU seen: ComfyUI would not start without it"
    given = names(own)
    kept = []
    for argument in arguments:
        clash = sorted(given & (flags[argument].excludes | {argument}))
        if clash:
            reasons[argument] = f"left out: COMFYUI_ARGS says {clash[0]}"
        else:
            kept.append(argument)
    return Tuning(chosen_tier, chosen_mode, (*kept, *own), reasons, tuple(warnings))


def _with_gpu(
    memory: Memory, tier: str, mode: str, reasons: dict[str, str], warnings: list[str]
) -> tuple[list[str], str, str]:
    gpu = memory.gpus[0]
    bound, row_tier, row_mode, row_arguments = row_for(gpu.vram_mib)
    seen = f"{gpu.name} has {gpu.vram_mib} MiB, " + (f"{bound} GB or more" if bound else "less than 8 GB")
    reasons["tier"] = seen if tier == "auto" else f"GPU_TIER={tier}"
    reasons["memory_mode"] = seen if mode == "auto" else f"GPU_MEMORY_MODE={mode}"
    chosen_tier = row_tier if tier == "auto" else tier
    chosen_mode = row_mode if mode == "auto" else mode
    if _ORDER.index(chosen_tier) > _ORDER.index(row_tier):
        warnings.append(f"GPU_TIER={tier} asks for more than the GPU is: {seen}")
    if not bound:
        warnings.append(f"{gpu.name} has {gpu.vram_mib} MiB of VRAM; below 8 GB few models run")
    if len(memory.gpus) > 1:
        warnings.append(f"{len(memory.gpus)} GPUs seen; ComfyUI uses the first and does not pool their memory")
    arguments = list(row_arguments)
    reasons.update(dict.fromkeys(arguments, seen))
    if mode == "sequential_cpu_offload" and "--lowvram" not in arguments:
        arguments.append("--lowvram")
        reasons["--lowvram"] = reasons["memory_mode"]
    elif mode in ("full", "model_cpu_offload") and "--lowvram" in arguments:
        arguments.remove("--lowvram")
        reasons["--lowvram"] = f"left out: GPU_MEMORY_MODE={mode}"
    ram = memory.ram_bytes / GIB
    if 0 < ram < PINNED_RAM_FLOOR_GIB:
        arguments.append("--disable-pinned-memory")
        whose = "the container's memory limit" if memory.limit_bytes == memory.ram_bytes else "the host's RAM"
        reasons["--disable-pinned-memory"] = f"{whose} is {ram:.1f} GiB, below {PINNED_RAM_FLOOR_GIB}"
    return arguments, chosen_tier, chosen_mode
