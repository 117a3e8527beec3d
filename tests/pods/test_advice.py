"""What the operator's command advises, followed: with the option, the variable or the command that it names, it works."""

from __future__ import annotations

import re
import subprocess

import pytest

from fakes.runpod import RunPod
from hearmeman.settings import Settings
from hearmeman_pod.endpoint_plan import POOLS
from hearmeman_pod.errors import NoCapacityError
from hearmeman_pod.gpus import Gpu

from .conftest import Operator
from .test_plan import planned
from .test_verbs import BODY

PLAN = ("plan", "--set", "WAN_480P=true")
NEW = ("create", "--name", "mine", "--set", "WAN_480P=true")
POOLED = ("endpoint", "plan", "--name", "films", "--set", "WAN_480P=true")
TEMPLATE = ("template", "--name", "t", "--json", "--readme")
ENDPOINT = ("endpoint", "create", "--name", "films", "--set", "WAN_480P=true")

OWN = tuple(word for number in range(40) for word in ("--set", f"MINE_{number}=x"))
DIFFERENT = tuple(
    word
    for name, variable in Settings.model_fields.items()
    if name.startswith("enable_") and variable.default is False and name not in ("enable_r2_sync", "enable_xtts")
    for word in ("--set", f"{name.upper()}=true")
)

LITERAL = [
    (("plan", "--set", "WAN_720P=true"), ("--volume", "15"), r"give (--volume \d+)"),
    (("plan",), ("--secret", "WAN_480P"), r"give (--set WAN_480P=)VALUE"),
    (PLAN, ("--set", "HF_TOKEN=hf_secretsecret"), "give (--secret HF_TOKEN)"),
    ((*PLAN, "--datacenter", "US-KS-2"), ("--cloud", "community"), "use (--cloud secure)"),
    (("stop", "mine"), (), "give (--force) to stop it anyway"),
    (("terminate", "mine"), (), "give (--yes) to do it"),
    (("volume", "create", "w", "--size", "10", "--datacenter", "US-KS-2"), (), "give (--yes) to do it"),
]
"""(the command, what is wrong in it, a pattern of the advice): what its group holds takes the place of what is wrong."""


@pytest.mark.parametrize(("words", "wrong", "advice"), LITERAL)
def test_the_option_that_is_named_is_given(
    operator: Operator, runpod: RunPod, words: tuple[str, ...], wrong: tuple[str, ...], advice: str
) -> None:
    runpod.made(dict(BODY), "RUNNING")
    runpod.queue = 1
    code, _, err = operator(*words, *wrong)
    found = re.search(advice, " ".join(err.split()))
    assert code and found, err
    code, out, err = operator(*words, *found[1].replace("WAN_480P=", "WAN_480P=true").split())
    assert code == 0, out + err


FOLLOWED = [
    ((*PLAN, "--gpu", "RTX"), "give one of these names", (*PLAN, "--gpu", "RTX 4090")),
    ((*PLAN, "--gpu", ""), "give a part of a GPU's name, such as 4090", (*PLAN, "--gpu", "4090")),
    (
        (*PLAN, "--cloud", "community", "--datacenter", "US-KS-2"),
        "leave out --datacenter",
        (*PLAN, "--cloud", "community"),
    ),
    ((*POOLED, "--pool", "NONE"), "choose from", (*POOLED, "--pool", "ADA_24")),
    (
        (*POOLED, *(word for pool in POOLS for word in ("--pool", pool))),
        "leave some out",
        (*POOLED, "--pool", POOLS[0]),
    ),
    (
        (*PLAN, "--image", "ghcr.io/a/b:latest"),
        "Give REPOSITORY@sha256:",
        (*PLAN, "--image", f"ghcr.io/a/b@sha256:{'a' * 64}"),
    ),
    (("status", "twin"), "give an id, pod1 or pod2", ("status", "pod1")),
    ((*TEMPLATE, "-"), "give --readme a file", (*TEMPLATE, "/dev/null")),
    ((*PLAN, "--network-volume", "v"), "give an id, vol1 or vol2", (*PLAN, "--network-volume", "vol2")),
    (("endpoint", "status", "e"), "give an id, ep0 or ep1", ("endpoint", "status", "ep1")),
    (
        (*PLAN, "--as", "dstack", "--registry", "r"),
        "give dstack its own, without --registry",
        (*PLAN, "--as", "dstack"),
    ),
    (
        (*PLAN, "--as", "skypilot", "--network-volume", "vol1"),
        "use SkyPilot's own `volumes`, without --network-volume",
        (*PLAN, "--as", "skypilot"),
    ),
    ((*PLAN, *OWN, *DIFFERENT), "leave some at their defaults", (*PLAN, *OWN)),
    ((*POOLED, *OWN, *DIFFERENT), "leave some at their defaults", (*POOLED, *OWN)),
]
"""(the command, its advice, the command that follows it)."""


@pytest.mark.parametrize(("words", "advice", "then"), FOLLOWED)
def test_the_command_is_given_again_as_advised(
    operator: Operator, runpod: RunPod, words: tuple[str, ...], advice: str, then: tuple[str, ...]
) -> None:
    for name in ("mine", "twin", "twin"):
        runpod.made({**BODY, "name": name}, "RUNNING")
    runpod.volumes["vol2"] = {**runpod.volumes["vol1"], "id": "vol2"}
    if words[:2] == ("endpoint", "status"):
        assert operator("endpoint", "create", "--name", "e")[0] == 0
        runpod.endpoints["ep1"] = {**runpod.endpoints["ep0"], "id": "ep1"}
    code, _, err = operator(*words)
    assert code and advice in err, err
    code, out, err = operator(*then)
    assert code == 0, out + err


def test_a_name_that_is_taken_is_changed_or_its_pod_ended(operator: Operator, runpod: RunPod) -> None:
    assert operator(*NEW)[0] == 0
    code, _, err = operator(*NEW)
    assert code and "Give another --name" in err, err
    assert operator("create", "--name", "other", *NEW[3:])[0] == 0
    command = re.search(r"hearmeman-pod (terminate \S+)", err)
    assert command is not None
    assert operator(*command[1].split(), "--yes")[0] == 0
    assert operator(*NEW)[0] == 0, "the name is free again"


def test_the_token_is_set_here_too(operator: Operator, runpod: RunPod) -> None:
    """Where the pod has a gate, `stop` cannot see ComfyUI's queue without its token."""
    runpod.gate = "a-token-of-the-gate"
    assert operator(*NEW, "--secret", "ACCESS_TOKEN")[0] == 0
    code, _, err = operator("stop", "mine")
    assert code and "set ACCESS_TOKEN here too, or give --force" in err, err
    operator.token = runpod.gate
    assert operator("stop", "mine")[0] == 0


def test_a_key_is_set(operator: Operator) -> None:
    operator.has_key = False
    code, _, err = operator("list")
    assert code and "set RUNPOD_API_KEY" in err, err
    operator.has_key = True
    assert operator("list")[0] == 0


@pytest.mark.parametrize(
    ("key", "advice"),
    [("rpa key", "copy it again from RunPod's console"), ("", "run `runpodctl config` again, or set")],
)
def test_a_key_is_copied_again(operator: Operator, key: str, advice: str) -> None:
    operator.has_key, operator.more = False, {"RUNPOD_API_KEY": key} if key else {}
    (operator.root / ".runpod").mkdir()
    (operator.root / ".runpod/config.toml").write_text("apikey = rpa")
    code, _, err = operator("list")
    assert code and advice in err, err
    operator.has_key, operator.more = True, {}
    assert operator("list")[0] == 0


def test_an_image_is_named_where_none_was_pushed(operator: Operator) -> None:
    (operator.root / "images.lock.json").write_text("[]")
    code, _, err = operator(*PLAN)
    assert code and "or name one: --image REPOSITORY@sha256:" in err, err
    assert operator(*PLAN, "--image", f"ghcr.io/a/b@sha256:{'a' * 64}")[0] == 0


def test_a_damaged_record_of_images_is_taken_from_git_again(operator: Operator) -> None:
    record, git = operator.root / "images.lock.json", ("git", "-C", str(operator.root), "-c", "user.name=a")
    for words in (("init", "-q"), ("add", record.name), ("-c", "user.email=a@b", "commit", "-qm", "x")):
        subprocess.run([*git, *words], check=True)
    record.write_text("<<<<<<< HEAD")
    code, _, err = operator(*PLAN)
    assert code
    [advice] = re.findall(r"restore it from git \(`git (checkout HEAD \S+)`\)", err)
    subprocess.run([*git, *advice.split()], check=True)
    assert operator(*PLAN)[0] == 0


def test_a_gate_is_made_as_the_plan_advises(operator: Operator) -> None:
    _, out, _ = operator(*PLAN)
    assert "make a RunPod secret `access_token` and give --secret ACCESS_TOKEN" in " ".join(out.split())
    _, out, _ = operator(*PLAN, "--secret", "ACCESS_TOKEN")
    assert "open to anyone" not in " ".join(out.split())


def test_a_volume_that_is_there_is_used_or_another_name_given(operator: Operator, runpod: RunPod) -> None:
    words = ("volume", "create", "films", "--size", "50", "--datacenter", "US-KS-2", "--yes")
    assert operator(*words)[0] == 0
    code, _, err = operator(*words)
    assert code == 2 and "use it, or give another name" in err, err
    assert operator("volume", "create", "more", *words[3:])[0] == 0
    [there] = re.findall(r"already, (\S+):", err)
    code, out, err = operator(*PLAN, "--network-volume", there)
    assert code == 0, out + err
    for change, advice in (
        (("--volume", "9"), "give --volume or --network-volume, not both"),
        (("--datacenter", "EU-RO-1"), "leave out --datacenter"),
        (("--cloud", "community"), "use --cloud secure"),
    ):
        code, _, err = operator(*PLAN, "--network-volume", there, *change)
        assert code == 2 and advice in err, err


def test_an_endpoint_is_updated_as_advised(operator: Operator, runpod: RunPod) -> None:
    assert operator(*ENDPOINT)[0] == 0
    code, _, err = operator(*ENDPOINT)
    assert code and "Give another --name, or change that one: hearmeman-pod endpoint update" in err, err
    command = re.search(r"hearmeman-pod (endpoint update \S+)", err)
    assert command is not None
    update = (*command[1].split(), "--yes")
    for wrong, advice, right in (
        (("--set", "WAN_480P=true", "--unset", "WAN_480P"), "choose one", ("--unset", "WAN_480P")),
        (("--workers-min", "9"), "give --workers-min and --workers-max", ("--workers-min", "9", "--workers-max", "9")),
        (("--set", "IMAGE_DIGEST=x"), "leave it out", ("--idle-seconds", "7")),
        (("--requests", "4"), "give --queue-delay", ("--queue-delay", "4")),
    ):
        code, _, err = operator(*update, *wrong)
        assert code == 2 and advice in err, err
        code, out, err = operator(*update, *right)
        assert code == 0, out + err
    runpod.endpoints["ep0"]["scaling"] = {"type": "REQUEST_COUNT", "requestCount": 4}
    code, _, err = operator(*update, "--queue-delay", "3")
    assert code == 2 and "give --requests" in err, err
    assert operator(*update, "--requests", "3")[0] == 0
    runpod.patches.append("500-before")
    code, _, err = operator(*update, "--requests", "2")
    assert code == 1 and "The endpoint is as it was: give the same command again" in err, err
    assert operator(*update, "--requests", "2")[0] == 0
    assert runpod.endpoints["ep0"]["scaling"]["requestCount"] == 2


def test_an_endpoint_whose_create_got_lost_is_looked_for_as_advised(operator: Operator, runpod: RunPod) -> None:
    runpod.creates.append("500-before")
    code, _, err = operator(*ENDPOINT)
    assert code == 1, err
    [command] = re.findall(r"check again with `hearmeman-pod ([\w ]+)`, and if it is not there, create it again", err)
    code, out, err = operator(*command.split())
    assert code == 0 and "films" not in out, out + err
    assert operator(*ENDPOINT)[0] == 0 and len(runpod.endpoints) == 1


def test_the_models_are_fewer_or_a_gpu_is_named_where_none_is_large_enough() -> None:
    small = (Gpu("NVIDIA GeForce RTX 3070", 8, 0.1, "HIGH", ("US-KS-2",), 8),)
    wan = {"WAN_720P": "true"}
    with pytest.raises(NoCapacityError, match="enable fewer or smaller models, or name a GPU with --gpu"):
        planned(small, variables=wan)
    assert planned(small).choices == planned(small, variables=wan, gpus=("RTX 3070",)).choices == small
