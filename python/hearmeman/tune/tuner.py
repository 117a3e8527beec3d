"""GPU, driver, memory and disk to tier, memory mode and ComfyUI arguments, each with its reason; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hearmeman.tune.flags import Flag, names, value_of
from hearmeman.tune.machine import Gpu, Memory

GIB = 1024**3

# Cards report less than their label: with ECC a 16, 24 or 48 GB card shows 93.75 % of it.
TOLERANCE = 0.07

PARSES_ONLY = "parses only"
"""How far an argument was tried: ComfyUI's parser takes it, and nobody has seen its effect on a GPU."""

ROWS: tuple[tuple[int, str, str, tuple[str, ...]], ...] = (
    (48, "datacenter", "full", ()),
    (24, "prosumer", "model_cpu_offload", ()),
    (16, "consumer", "model_cpu_offload", ()),
    (12, "consumer", "sequential_cpu_offload", ()),
    (8, "consumer", "sequential_cpu_offload", ("--vram-headroom 1",)),
    (0, "consumer", "sequential_cpu_offload", ("--vram-headroom 1", "--cpu-vae")),
)
"""Lower bound in GB of VRAM (inclusive) -> tier, memory mode, arguments; precision is left to ComfyUI.

ComfyUI's DynamicVRAM pages weights in and out by itself, so most rows need nothing, and --lowvram would do nothing.
"""

OTHER_ARGUMENTS = (
    "--cpu",
    "--disable-smart-memory",
    "--reserve-vram 4.5",
    "--cache-none",
    "--cache-lru 8",
    "--disable-pinned-memory",
    "--disable-mmap",
)
"""What the rules below give beside the rows, for the check against a ComfyUI's own parser."""

VOICE_GB = {"XTTS": 4.0, "Chatterbox": 4.0}
"""GB of VRAM that a voice engine holds while ComfyUI works beside it, as others report it: XTTS v2 4 (its users, 1.9 GB of
weights), Chatterbox 3.6 on an L4."""
OWN_RESERVE_GB = 0.5
"""What ComfyUI keeps free anyway; --reserve-vram replaces it."""

PINNED_RAM_FLOOR_GIB = 24
"""With less RAM than this, memory that is pinned for transfers may get the container killed."""
PINNED_LIMIT_FLOOR_GIB = 128
"""The same where the container has a limit: ComfyUI pins by the host's free RAM and does not see the limit."""
NO_CACHE_BELOW_GIB = 12
FEW_RESULTS_BELOW_GIB = 48

_ORDER = ("consumer", "prosumer", "datacenter")
_DYNAMIC_OFF = {"--disable-dynamic-vram", "--highvram", "--gpu-only", "--novram", "--cpu"}


@dataclass(frozen=True)
class Argument:
    """One argument that the tuner gives to ComfyUI."""

    words: tuple[str, ...]
    """The flag and its values."""
    reason: str
    """Why, in one line."""
    seen: str = PARSES_ONLY
    """How far it was tried."""


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
    given: tuple[Argument, ...] = ()
    """The arguments that the tuner gave."""
    problems: tuple[str, ...] = ()
    """Why ComfyUI cannot run here, with the fix."""


@dataclass
class _Draft:
    """A tuning in the making."""

    arguments: list[Argument] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def give(self, text: str, reason: str) -> None:
        self.arguments.append(Argument(tuple(text.split()), reason))


def row_for(vram_mib: int) -> tuple[int, str, str, tuple[str, ...]]:
    """Find the row whose lower bound this much VRAM reaches."""
    return next(row for row in ROWS if vram_mib >= row[0] * 1024 * (1 - TOLERANCE))


def tune(
    memory: Memory,
    flags: Mapping[str, Flag],
    tier: str = "auto",
    mode: str = "auto",
    own: tuple[str, ...] = (),
    voices: Sequence[str] = (),
    cuda_floor: str = "",
) -> Tuning:
    """Choose for this machine; `tier`, `mode` and `own` (checked COMFYUI_ARGS) are a person's wishes and win.

    `voices` are the enabled engines of VOICE_GB, `cuda_floor` is the lowest CUDA version that the image runs on.
    """
    draft = _Draft()
    given = names(own)
    if memory.gpus and "--cpu" not in given:
        gpu = _chosen(memory, own, draft)
        chosen_tier, chosen_mode = _gpu_rules(gpu, tier, mode, draft)
        _voice_rule(gpu, voices, draft)
        _driver_rule(memory, cuda_floor, draft)
        if len(memory.gpus) > 1:
            draft.warnings.append(
                f"{len(memory.gpus)} GPUs found; ComfyUI uses one of them and does not pool their memory: "
                "choose a pod with one unless other programs use the rest"
            )
    else:
        why = "no GPU found" if not memory.gpus else "COMFYUI_ARGS says --cpu"
        chosen_tier, chosen_mode = ("consumer" if tier == "auto" else tier), "cpu"
        if not memory.gpus:
            draft.warnings.append(
                f"no GPU found: {memory.gpu_problem}; ComfyUI runs on the CPU, which is very slow; "
                "choose a pod with a GPU"
            )
        draft.reasons["tier"] = why if tier == "auto" else f"GPU_TIER={tier}"
        draft.reasons["memory_mode"] = why
        draft.give("--cpu", f"{why}: ComfyUI would not start without it")
    _ram_rules(memory, draft)
    _disk_rule(memory, draft)
    kept = _without_clashes(draft, given, flags)
    arguments = (*(word for argument in kept for word in argument.words), *own)
    return Tuning(
        chosen_tier, chosen_mode, arguments, draft.reasons, tuple(draft.warnings), tuple(kept), tuple(draft.problems)
    )


def _chosen(memory: Memory, own: tuple[str, ...], draft: _Draft) -> Gpu:
    for flag in ("--cuda-device", "--default-device"):
        first = (value_of(own, flag) or "").split(",")[0]
        if first.isdigit():
            if int(first) < len(memory.gpus):
                return memory.gpus[int(first)]
            last = len(memory.gpus) - 1
            draft.problems.append(
                f"COMFYUI_ARGS says {flag} {first}, but this pod's GPUs are numbered 0 to {last}: name one of them"
            )
    return memory.gpus[0]


def _gpu_rules(gpu: Gpu, tier: str, mode: str, draft: _Draft) -> tuple[str, str]:
    bound, row_tier, row_mode, row_arguments = row_for(gpu.vram_mib)
    seen = f"{gpu.name} has {gpu.vram_mib} MiB, " + (f"{bound} GB or more" if bound else "less than 8 GB")
    draft.reasons["tier"] = seen if tier == "auto" else f"GPU_TIER={tier}"
    draft.reasons["memory_mode"] = seen if mode == "auto" else f"GPU_MEMORY_MODE={mode}"
    chosen_tier = row_tier if tier == "auto" else tier
    if _ORDER.index(chosen_tier) > _ORDER.index(row_tier):
        draft.warnings.append(f"GPU_TIER={tier} asks for more than the GPU is: {seen}; unset it to go by the GPU")
    if not bound:
        draft.warnings.append(
            f"{gpu.name} has {gpu.vram_mib} MiB of VRAM, and below 8 GB few models run; choose a larger GPU"
        )
    wished = {
        "full": (),
        "model_cpu_offload": ("--disable-smart-memory",),
        "sequential_cpu_offload": (f"--vram-headroom {max(1, gpu.vram_mib // 2048)}",),
    }
    effect = {
        "full": "ComfyUI keeps on the GPU what fits",
        "model_cpu_offload": "models leave the GPU after each use",
        "sequential_cpu_offload": "ComfyUI is asked to leave half of the VRAM free when it loads weights",
    }
    # A mode that the GPU has anyway means what it means without being asked for.
    if mode in ("auto", row_mode):
        for text in row_arguments:
            headroom = ": ComfyUI is asked to leave that many GB free when it loads weights"
            draft.give(text, seen + (headroom if text.startswith("--vram-headroom") else ""))
        if mode != "auto":
            draft.reasons["memory_mode"] += ", which this GPU gets anyway"
        return chosen_tier, row_mode
    for text in wished[mode]:
        draft.give(text, f"GPU_MEMORY_MODE={mode}: {effect[mode]}")
    for text in row_arguments:
        flag = text.split()[0]
        if flag == "--cpu-vae" and mode == "sequential_cpu_offload":
            draft.give(text, seen)
        elif not any(flag == argument.words[0] for argument in draft.arguments):
            draft.reasons[flag] = f"left out: GPU_MEMORY_MODE={mode}"
    return chosen_tier, mode


def _voice_rule(gpu: Gpu, voices: Sequence[str], draft: _Draft) -> None:
    if not voices:
        return
    need = sum(VOICE_GB[name] for name in voices)
    names_text = " and ".join(voices)
    wanted, half = OWN_RESERVE_GB + need, math.floor(gpu.vram_mib / 1024 * 5) / 10
    reason = f"{names_text} hold about {need:g} GB of VRAM beside ComfyUI"
    if wanted > half:
        # More would leave ComfyUI nothing to load a model into; on a small card it reserved more than there was.
        reason += f"; no more than half of the {gpu.vram_mib} MiB is kept for them"
    draft.give(f"--reserve-vram {min(wanted, half):g}", reason)
    if need * 1024 > gpu.vram_mib / 2:
        draft.warnings.append(
            f"{names_text} need about {need:g} GB of the {gpu.vram_mib} MiB of VRAM: "
            "few models fit beside them; choose a larger GPU, or one voice"
        )


def _driver_rule(memory: Memory, cuda_floor: str, draft: _Draft) -> None:
    if not cuda_floor or memory.cuda is None:
        return
    floor = tuple(int(part) for part in cuda_floor.split("."))
    if memory.cuda < floor:
        has = ".".join(str(part) for part in memory.cuda)
        draft.problems.append(
            f"this host's NVIDIA driver {memory.driver} runs CUDA up to {has}, and this image needs {cuda_floor}: "
            "ComfyUI would fail at its first use of the GPU. A pod cannot change its host's driver: "
            f"stop it and create one with CUDA {cuda_floor} or newer (the filter 'CUDA version' on RunPod; "
            "of an endpoint, its minimum CUDA version)"
        )


def _ram_rules(memory: Memory, draft: _Draft) -> None:
    ram = memory.ram_bytes / GIB
    if not ram:
        return
    if memory.is_limited:
        blind = (
            f"the container's memory limit is {ram:.1f} GiB, but ComfyUI would go by the host's "
            f"{memory.host_bytes / GIB:.0f} GiB"
        )
        if ram < NO_CACHE_BELOW_GIB:
            draft.give("--cache-none", blind)
        else:
            draft.give(f"--cache-lru {8 if ram < FEW_RESULTS_BELOW_GIB else 24}", blind)
    else:
        blind = f"the host's RAM is {ram:.1f} GiB, below {PINNED_RAM_FLOOR_GIB}"
    if memory.gpus and ram < (PINNED_LIMIT_FLOOR_GIB if memory.is_limited else PINNED_RAM_FLOOR_GIB):
        draft.give("--disable-pinned-memory", blind)


def _disk_rule(memory: Memory, draft: _Draft) -> None:
    if memory.models.is_network:
        where = f"the models are on a network filesystem ({memory.models.kind})"
        draft.give("--disable-mmap", f"{where}, where reading through mmap is many times slower")
        draft.warnings.append(
            f"{where}: a model's first load is as slow as the volume is; choose a pod with a disk of its own if "
            "that matters"
        )


def _without_clashes(draft: _Draft, given: set[str], flags: Mapping[str, Flag]) -> list[Argument]:
    kept = []
    for argument in draft.arguments:
        flag = argument.words[0]
        clash = given & (flags[flag].excludes | {flag})
        if flag == "--vram-headroom":
            clash |= given & _DYNAMIC_OFF
        if clash:
            draft.reasons[flag] = f"left out: COMFYUI_ARGS says {min(clash)}"
        else:
            draft.reasons[flag] = argument.reason
            kept.append(argument)
    return kept
