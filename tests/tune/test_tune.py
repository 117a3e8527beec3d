"""The tuner: every row of the VRAM table, a person's wishes, and ComfyUI's own flags."""

import dataclasses
import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.nvml import Nvml
from hearmeman.models import asked, catalogue
from hearmeman.settings import load
from hearmeman.storage import Mount, mount_of
from hearmeman.tune import command as tune_command
from hearmeman.tune import machine
from hearmeman.tune import models as tune_models
from hearmeman.tune.flags import PACKAGED, check, load_flags, names
from hearmeman.tune.machine import Gpu, Memory, memory_limit
from hearmeman.tune.tuner import ROWS, VOICE_GB, tune
from standin.arguments import load_facts, parser

FLAGS = load_flags()
COMFYUI = parser(load_facts(PACKAGED))
GIB = 1024**3


def memory(*vram_mib: int, ram_gib: int = 64, limit_gib: int | None = None) -> Memory:
    gpus = tuple(Gpu("a card", size) for size in vram_mib)
    limit = None if limit_gib is None else limit_gib * GIB
    return Memory(gpus, "" if gpus else "no driver", limit, ram_gib * GIB)


@pytest.mark.parametrize(
    ("card", "vram_mib", "tier", "mode", "arguments"),
    [
        ("6 GB", 6144, "consumer", "sequential_cpu_offload", ("--vram-headroom", "1", "--cpu-vae")),
        ("8 GB", 8192, "consumer", "sequential_cpu_offload", ("--vram-headroom", "1")),
        ("11 GB", 11264, "consumer", "sequential_cpu_offload", ("--vram-headroom", "1")),
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
    assert {"tier", "memory_mode", *names(arguments)} <= set(chosen.reasons)


def test_every_argument_of_the_table_is_a_flag_of_comfyui() -> None:
    for _, _, _, arguments in ROWS:
        text = " ".join(arguments)
        assert check(text, FLAGS) == (tuple(text.split()), [], [])


def test_below_8_gb_warns() -> None:
    assert any("below 8 GB" in warning for warning in tune(memory(4096), FLAGS).warnings)


def test_no_gpu_is_said_plainly() -> None:
    chosen = tune(memory(), FLAGS)
    assert chosen.arguments == ("--cpu",)
    assert any(warning.startswith("no GPU found: no driver") for warning in chosen.warnings)


def test_wishes_win_and_too_high_a_tier_warns() -> None:
    chosen = tune(memory(16376), FLAGS, tier="datacenter", mode="sequential_cpu_offload")
    assert (chosen.tier, chosen.memory_mode, chosen.arguments) == (
        "datacenter",
        "sequential_cpu_offload",
        ("--vram-headroom", "7"),
    )
    assert any("GPU_TIER=datacenter" in warning for warning in chosen.warnings)
    assert tune(memory(8192), FLAGS, mode="full").arguments == ()
    assert tune(memory(81559), FLAGS, mode="model_cpu_offload").arguments == ("--disable-smart-memory",)


@pytest.mark.parametrize("vram", [4096, 8192, 12288, 16376, 24564, 49140, 81559])
def test_a_mode_means_the_same_whether_it_is_chosen_or_asked_for(vram: int) -> None:
    chosen = tune(memory(vram), FLAGS)
    asked = tune(memory(vram), FLAGS, mode=chosen.memory_mode)
    assert (asked.memory_mode, asked.arguments) == (chosen.memory_mode, chosen.arguments)
    assert "which this GPU gets anyway" in asked.reasons["memory_mode"]


@pytest.mark.parametrize("vram", [4096, 8192, 12288, 24564])
def test_voices_never_reserve_more_than_half_of_the_gpu(vram: int) -> None:
    for voices in (("XTTS",), ("XTTS", "Chatterbox")):
        reserved = float(tune(memory(vram), FLAGS, voices=voices).arguments[-1])
        assert reserved <= vram / 2048
    assert tune(memory(4096), FLAGS, voices=("XTTS", "Chatterbox")).arguments[-2:] == ("--reserve-vram", "2")


@pytest.mark.parametrize(
    ("environ", "own", "reserving"),
    [
        ({"ENABLE_XTTS": "true"}, (), ()),
        ({"ENABLE_XTTS": "true", "COQUI_TOS_AGREED": "true"}, (), ("XTTS",)),
        ({"ENABLE_CHATTERBOX": "true", "VOICE_GPU": "0"}, (), ("Chatterbox",)),
        ({"ENABLE_CHATTERBOX": "true", "VOICE_GPU": "1"}, (), ()),
        ({"ENABLE_CHATTERBOX": "true", "VOICE_GPU": "1"}, ("--cuda-device", "1"), ("Chatterbox",)),
        ({"ENABLE_CHATTERBOX": "true"}, ("--cuda-device", "1"), ()),
    ],
)
def test_only_voices_that_start_on_comfyuis_own_gpu_reserve_its_memory(
    environ: dict[str, str], own: tuple[str, ...], reserving: tuple[str, ...]
) -> None:
    assert tune_command.voices(load(environ), own) == reserving


def test_own_arguments_push_out_what_they_exclude() -> None:
    chosen = tune(memory(4096), FLAGS, own=("--highvram",))
    assert chosen.arguments == ("--cpu-vae", "--highvram")
    assert chosen.reasons["--vram-headroom"] == "left out: COMFYUI_ARGS says --highvram"
    assert tune(memory(), FLAGS, own=("--cpu", "--fast")).arguments == ("--cpu", "--fast")
    assert tune(memory(24564), FLAGS, own=("--cpu",)).arguments == ("--cpu",)


@pytest.mark.parametrize(
    ("limit_gib", "arguments"),
    [
        (8, ("--cache-none", "--disable-pinned-memory")),
        (16, ("--cache-lru", "8", "--disable-pinned-memory")),
        (64, ("--cache-lru", "24", "--disable-pinned-memory")),
        (250, ("--cache-lru", "24")),
        (512, ()),
    ],
)
def test_a_limit_below_the_host_s_ram_is_kept(limit_gib: int, arguments: tuple[str, ...]) -> None:
    chosen = tune(memory(24564, ram_gib=512, limit_gib=limit_gib), FLAGS)
    assert chosen.arguments == arguments
    for flag in names(arguments):
        assert f"memory limit is {limit_gib}.0 GiB" in chosen.reasons[flag]


def test_a_small_host_keeps_memory_unpinned() -> None:
    assert tune(memory(24564, ram_gib=16), FLAGS).arguments == ("--disable-pinned-memory",)
    assert tune(memory(ram_gib=16), FLAGS).arguments == ("--cpu",)


def test_models_on_a_network_volume_are_not_mapped() -> None:
    here = dataclasses.replace(memory(24564), models=Mount("/workspace", "fuse.mfs"))
    chosen = tune(here, FLAGS)
    assert chosen.arguments == ("--disable-mmap",)
    assert "fuse.mfs" in chosen.reasons["--disable-mmap"]
    assert any("first load" in warning for warning in chosen.warnings)


def test_voices_get_their_vram() -> None:
    chosen = tune(memory(24564), FLAGS, voices=("XTTS", "Chatterbox"))
    assert chosen.arguments == ("--reserve-vram", "8.5")
    assert chosen.warnings == ()
    assert any("few models fit" in w for w in tune(memory(12288), FLAGS, voices=("XTTS", "Chatterbox")).warnings)


@pytest.mark.parametrize(("cuda", "fails"), [((12, 4), True), ((12, 8), False), ((13, 0), False), (None, False)])
def test_an_old_driver_is_told_before_comfyui_starts(cuda: tuple[int, int] | None, fails: bool) -> None:
    here = dataclasses.replace(memory(24564), driver="550.54", cuda=cuda)
    problems = tune(here, FLAGS, cuda_floor="12.8").problems
    assert bool(problems) is fails
    if fails:
        assert "driver 550.54 runs CUDA up to 12.4, and this image needs 12.8" in problems[0]
        assert "create one with CUDA 12.8" in problems[0]


def test_the_gpu_that_is_asked_for_is_the_one_that_is_tuned() -> None:
    here = memory(81559, 8192)
    assert tune(here, FLAGS, own=("--cuda-device", "1")).memory_mode == "sequential_cpu_offload"
    assert tune(here, FLAGS, own=("--cuda-device=0",)).tier == "datacenter"
    assert "numbered 0 to 1" in tune(here, FLAGS, own=("--cuda-device", "2")).problems[0]


def test_no_argument_claims_to_have_been_seen_on_a_gpu() -> None:
    chosen = tune(memory(6144, ram_gib=512, limit_gib=8), FLAGS, voices=("XTTS",))
    assert len(chosen.given) == 5
    assert {argument.seen for argument in chosen.given} == {"parses only"}


MEMORIES = st.builds(
    lambda vram, ram, limit, kind, cuda: Memory(
        tuple(Gpu("a card", size) for size in vram), "", limit, ram, "1", cuda, Mount("/m", kind)
    ),
    st.lists(st.integers(0, 300_000), max_size=3),
    st.integers(0, 4096 * GIB),
    st.none() | st.integers(1, 4096 * GIB),
    st.sampled_from(["", "ext4", "nfs4", "fuse", "overlay"]),
    st.none() | st.tuples(st.integers(11, 13), st.integers(0, 9)),
)
WISHES = {
    "tier": st.sampled_from(["auto", "consumer", "prosumer", "datacenter"]),
    "mode": st.sampled_from(["auto", "full", "model_cpu_offload", "sequential_cpu_offload"]),
    "voices": st.lists(st.sampled_from(sorted(VOICE_GB)), unique=True),
}
OWN = st.sampled_from(
    ["", "--lowvram", "--novram --cache-classic", "--vram-headroom 2", "--cpu", "--high-ram --fast", "--cuda-device 1"]
)


@given(here=MEMORIES, own=OWN, **WISHES)
def test_whatever_is_chosen_comfyui_takes(here: Memory, own: str, tier: str, mode: str, voices: list[str]) -> None:
    wanted, problems, _ = check(own, FLAGS)
    assert problems == []
    chosen = tune(here, FLAGS, tier, mode, wanted, voices, "12.8")
    COMFYUI.parse_args(list(chosen.arguments))
    assert check(" ".join(chosen.arguments), FLAGS)[1] == []
    assert set(wanted) <= set(chosen.arguments)
    for argument in chosen.given:
        assert argument.reason and "\n" not in argument.reason
    if not here.gpus and not names(wanted) & FLAGS["--cpu"].excludes:
        assert "--cpu" in chosen.arguments


@given(small=st.integers(0, 200_000), more=st.integers(0, 200_000))
def test_more_vram_never_means_less(small: int, more: int) -> None:
    modes = ["sequential_cpu_offload", "model_cpu_offload", "full"]
    tiers = ["consumer", "prosumer", "datacenter"]
    one, two = tune(memory(small), FLAGS), tune(memory(small + more), FLAGS)
    assert modes.index(one.memory_mode) <= modes.index(two.memory_mode)
    assert tiers.index(one.tier) <= tiers.index(two.tier)
    assert len(one.arguments) >= len(two.arguments)


@given(st.lists(st.sampled_from([*sorted(FLAGS), "1", "0.5", "-1", "auto", "x", "--fas", "--lowvra", ""]), max_size=5))
def test_what_passes_the_check_comfyui_takes_too(words: list[str]) -> None:
    text = shlex.join(words)
    arguments, problems, _ = check(text, FLAGS)
    if not problems:
        assert arguments == tuple(words)
        COMFYUI.parse_args(words)


def test_two_gpus_are_not_one() -> None:
    chosen = tune(memory(24564, 24564), FLAGS)
    assert chosen.tier == "prosumer"
    assert any("does not pool" in warning for warning in chosen.warnings)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
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
        ("--front-end-root /nowhere", "must be a folder that exists"),
        ("--cache-ram 1 2 3", "takes two values at most"),
        ("--lowvram 1", "'1' belongs to no flag"),
        ("--lowvram --highvram", "--highvram excludes --lowvram"),
        ("'--lowvram", "close the quote"),
        ("--enable-cors-header", "lets every web page drive ComfyUI"),
        ("--enable-cors-header '*'", "lets every web page drive ComfyUI"),
        ("--tls-keyfile /k", "RunPod's proxy speaks TLS"),
    ],
)
def test_wrong_arguments(text: str, problem: str) -> None:
    _, problems, _ = check(text, FLAGS)
    assert len(problems) == 1
    assert problems[0].startswith("COMFYUI_ARGS")
    assert problem in problems[0]


@pytest.mark.parametrize("gone", ["--medvram", "--normalvram", "--cpu-text-encoder"])
def test_flags_of_older_guides_are_dropped_with_a_warning(gone: str) -> None:
    words, problems, warnings = check(f"--fast {gone} --preview-method auto", FLAGS)
    assert (words, problems) == (("--fast", "--preview-method", "auto"), [])
    assert len(warnings) == 1
    assert f"COMFYUI_ARGS: {gone} is dropped, ComfyUI has no such flag" in warnings[0]


@pytest.mark.parametrize(
    "text",
    ["--fast", "--fast cublas_ops", "--reserve-vram 1.5", "--directml -1", "--cache-ram 4 8", "--preview-method=auto"],
)
def test_right_arguments(text: str) -> None:
    assert check(text, FLAGS) == (tuple(text.split()), [], [])


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


def test_what_nvml_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: None)
    nvml = Nvml([("RTX 4090", 24564, None), ("H100", 81559, [20096, 40448])])
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    seen = machine.nvidia()
    assert seen.gpus == (Gpu("RTX 4090", 24564), Gpu("H100", 20096), Gpu("H100", 40448))
    assert (seen.driver, seen.cuda, seen.problem) == ("570.86.15", (12, 8), "")
    assert nvml.shut


@pytest.mark.parametrize(
    ("cards", "broken", "said"),
    [
        ([], "", "lists no GPU"),
        ([("a", 1, None)], "init", "does not answer (Driver Not Loaded)"),
        ([("a", 1, None)], "memory", "gives no memory size"),
    ],
)
def test_what_nvml_does_not_say(
    monkeypatch: pytest.MonkeyPatch, cards: list[tuple[str, int, list[int] | None]], broken: str, said: str
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: None)
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(cards, broken))
    seen = machine.nvidia()
    assert seen.gpus == ()
    assert said in seen.problem


MOUNTS = """22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / /workspace rw,nosuid shared:1 - fuse.mfs mfs#10.0.0.1:9421 rw
31 30 0:41 / /workspace/my\\040models ro - tmpfs tmpfs rw
32 22 0:42 / /workspaces rw - nfs4 host:/x rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/etc", "ext4", False),
        ("/workspace", "fuse.mfs", True),
        ("/workspace/ComfyUI/models", "fuse.mfs", True),
        ("/workspace/my models/x", "tmpfs", False),
        ("/workspaces/x", "nfs4", True),
        ("/workspace2", "ext4", False),
    ],
)
def test_the_filesystem_of_a_folder(tmp_path: Path, path: str, kind: str, network: bool) -> None:
    put(tmp_path, "proc/self/mountinfo", MOUNTS)
    found = mount_of(Path(path), tmp_path)
    assert (found.kind, found.is_network) == (kind, network)
    assert found.read_only is (kind == "tmpfs")
    assert mount_of(Path(path), tmp_path / "nowhere").kind == ""


CATALOGUE = catalogue.read(Path(catalogue.__file__).with_name("catalogue.toml"))


def judged(vram_gb: float, environ: dict[str, str], **voices: float) -> dict[str, tune_models.Fit]:
    enabled = asked.asked_for(CATALOGUE, load({"ENABLE_CONTROLNET": "false", **environ}))
    return {fit.model: fit for fit in tune_models.fits(enabled, CATALOGUE.models, vram_gb, voices)}


def test_each_model_is_judged_and_the_way_out_is_named() -> None:
    large = judged(16, {"ENABLE_VIBEVOICE": "true"})["vibevoice-large"]
    assert large.verdict == "too large"
    assert large.advice == "set VIBEVOICE_MODEL=Large-Q8 (12 GB) or take a GPU with 20 GB or more"
    assert judged(24, {"ENABLE_VIBEVOICE": "true"})["vibevoice-large"].verdict == "fits"
    wan = judged(16, {"WAN_720P": "true"})["wan21-t2v-14b"]
    assert wan.verdict == "slow"
    assert wan.advice.startswith("parts of it wait in RAM")
    assert judged(4, {"ENABLE_STEADYDANCER": "true"})["steadydancer"].advice == "take a GPU with 24 GB or more"


def test_a_voice_engine_takes_its_share() -> None:
    beside = judged(23.99, {"ENABLE_STEADYDANCER": "true", "ENABLE_XTTS": "true", "COQUI_TOS_AGREED": "1"}, XTTS=4.0)
    assert beside["steadydancer"].verdict == "too large"
    assert "turn off XTTS, which hold 4 GB" in beside["steadydancer"].advice
    assert beside["xtts-v2"].verdict == "fits"


@given(small=st.floats(0, 200), more=st.floats(0, 200), model=st.sampled_from(CATALOGUE.models))
def test_a_larger_gpu_never_fits_less(small: float, more: float, model: catalogue.Model) -> None:
    order = ["too large", "slow", "fits"]
    verdicts = [tune_models.fits([model], CATALOGUE.models, size, {})[0].verdict for size in (small, small + more)]
    if "unknown" not in verdicts:
        assert order.index(verdicts[0]) <= order.index(verdicts[1])
    else:
        assert verdicts == ["unknown", "unknown"]
