"""The tuner: every row of the VRAM table, a person's wishes, and ComfyUI's own flags."""

from pathlib import Path

import pytest

from hearmeman.tune.flags import check, load_flags
from hearmeman.tune.machine import Gpu, Memory, memory_limit
from hearmeman.tune.tuner import ROWS, tune

FLAGS = load_flags()
GIB = 1024**3


def memory(*vram_mib: int, ram_gib: int = 64, limit_gib: int | None = None) -> Memory:
    gpus = tuple(Gpu("a card", size) for size in vram_mib)
    limit = None if limit_gib is None else limit_gib * GIB
    return Memory(gpus, "" if gpus else "no driver", limit, ram_gib * GIB)


@pytest.mark.parametrize(
    ("card", "vram_mib", "tier", "mode", "arguments"),
    [
        ("6 GB", 6144, "consumer", "sequential_cpu_offload", ("--lowvram", "--cpu-vae")),
        ("8 GB", 8192, "consumer", "sequential_cpu_offload", ("--lowvram",)),
        ("11 GB", 11264, "consumer", "sequential_cpu_offload", ("--lowvram",)),
        ("12 GB", 12288, "consumer", "sequential_cpu_offload", ()),
        ("T4, ECC", 15360, "consumer", "model_cpu_offload", ()),
        ("16 GB", 16376, "consumer", "model_cpu_offload", ()),
        ("20 GB", 20475, "consumer", "model_cpu_offload", ()),
        ("L4, ECC", 23034, "prosumer", "model_cpu_offload", ()),
        ("RTX 4090", 24564, "prosumer", "model_cpu_offload", ()),
        ("RTX 5090", 32607, "prosumer", "model_cpu_offload", ()),
        ("L40S, ECC", 46068, "datacenter", "full", ()),
        ("RTX A6000", 49140, "datacenter", "full", ()),
        ("H100", 81559, "datacenter", "full", ()),
    ],
)
def test_rows(card: str, vram_mib: int, tier: str, mode: str, arguments: tuple[str, ...]) -> None:
    chosen = tune(memory(vram_mib), FLAGS)
    assert (chosen.tier, chosen.memory_mode, chosen.arguments) == (tier, mode, arguments), card
    assert {"tier", "memory_mode", *arguments} <= set(chosen.reasons)


def test_every_argument_of_the_table_is_a_flag_of_comfyui() -> None:
    for _, _, _, arguments in ROWS:
        assert check(" ".join(arguments), FLAGS) == (arguments, [])


def test_below_8_gb_warns() -> None:
    assert any("below 8 GB" in warning for warning in tune(memory(4096), FLAGS).warnings)


def test_no_gpu_is_said_plainly() -> None:
    chosen = tune(memory(), FLAGS)
    assert chosen.arguments == ("--cpu",)
    assert any(warning.startswith("no GPU seen: no driver") for warning in chosen.warnings)


def test_wishes_win_and_too_high_a_tier_warns() -> None:
    chosen = tune(memory(12288), FLAGS, tier="datacenter", mode="sequential_cpu_offload")
    assert (chosen.tier, chosen.memory_mode, chosen.arguments) == (
        "datacenter",
        "sequential_cpu_offload",
        ("--lowvram",),
    )
    assert any("GPU_TIER=datacenter" in warning for warning in chosen.warnings)
    assert tune(memory(8192), FLAGS, mode="full").arguments == ()


def test_own_arguments_push_out_what_they_exclude() -> None:
    chosen = tune(memory(8192), FLAGS, own=("--highvram",))
    assert chosen.arguments == ("--highvram",)
    assert chosen.reasons["--lowvram"] == "left out: COMFYUI_ARGS says --highvram"
    assert tune(memory(), FLAGS, own=("--cpu", "--fast")).arguments == ("--cpu", "--fast")


def test_little_ram_keeps_memory_unpinned() -> None:
    chosen = tune(memory(24564, ram_gib=512, limit_gib=16), FLAGS)
    assert chosen.arguments == ("--disable-pinned-memory",)
    assert "container's memory limit is 16.0 GiB" in chosen.reasons["--disable-pinned-memory"]


def test_two_gpus_are_not_one() -> None:
    chosen = tune(memory(24564, 24564), FLAGS)
    assert chosen.tier == "prosumer"
    assert any("does not pool" in warning for warning in chosen.warnings)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("--medvram", "--medvram is not a flag of ComfyUI: leave it out"),
        ("--normalvram", "leave it out"),
        ("--cpu-text-encoder", "leave it out"),
        ("--lowvran", "did you mean --lowvram?"),
        ("--preview-m auto", "--preview-m is not a flag of ComfyUI: did you mean --preview-method?"),
        ("--listen 0.0.0.0", "use COMFYUI_HOST"),
        ("--port=9000", "use COMFYUI_PORT"),
        ("--base-directory /x", "use VOLUME_DIR"),
        ("--output-directory /x", "use COMFYUI_OUTPUT_DIR"),
        ("--models-directory /x", "use MODELS_DIR"),
        ("--preview-method nice", "must be one of none, auto"),
        ("--preview-size wide", "must be a whole number"),
        ("--reserve-vram", "needs a value"),
        ("--lowvram=1", "takes no value"),
        ("--lowvram 1", "'1' belongs to no flag"),
        ("--lowvram --highvram", "--highvram excludes --lowvram"),
        ("'--lowvram", "close the quotation"),
    ],
)
def test_wrong_arguments(text: str, problem: str) -> None:
    _, problems = check(text, FLAGS)
    assert len(problems) == 1
    assert problems[0].startswith("COMFYUI_ARGS")
    assert problem in problems[0]


@pytest.mark.parametrize(
    "text",
    ["--fast", "--fast cublas_ops", "--reserve-vram 1.5", "--directml -1", "--cache-ram 4 8", "--preview-method=auto"],
)
def test_right_arguments(text: str) -> None:
    assert check(text, FLAGS) == (tuple(text.split()), [])


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_memory_limit_of_cgroup_2(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/a/b\n")
    put(tmp_path, "sys/fs/cgroup/a/memory.max", "1000\n")
    put(tmp_path, "sys/fs/cgroup/a/b/memory.max", "max\n")
    assert memory_limit(tmp_path) == 1000


def test_memory_limit_of_cgroup_1(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "5:cpu,memory:/docker/x\n")
    put(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n")
    assert memory_limit(tmp_path) == 2000
    put(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_limit(tmp_path) is None
