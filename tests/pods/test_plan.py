"""Plans of pods: every one is a body that RunPod takes, holds what the models need, and shows no secret."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearmeman.errors import HearmemanError
from hearmeman.models import catalogue
from hearmeman.settings import SECRETS, Settings
from hearmeman.settings.settings import RUNPOD_SECRETS
from hearmeman_pod import schema
from hearmeman_pod.errors import NoCapacityError, PodError, UsageError
from hearmeman_pod.formats import FORMATS
from hearmeman_pod.gpus import Gpu, from_names
from hearmeman_pod.images import from_lock, from_reference
from hearmeman_pod.plan import Plan, Volume, Wishes, make_plan
from hearmeman_pod.template import template_body

from .conftest import REFERENCE, Operator

CATALOGUE = catalogue.read(Path(catalogue.__file__).with_name("catalogue.toml"))
IMAGE = from_reference(REFERENCE, "12.8")
TOGGLES = sorted(name.upper() for name in Settings.model_fields if name.startswith(("enable_", "wan_")))
GPUS = tuple(Gpu(gpu.id, gpu.memory, 0.01 * gpu.memory, "HIGH", ("US-KS-2",), 8) for gpu in from_names())


def planned(known: tuple[Gpu, ...] = GPUS, **wishes: object) -> Plan:
    return make_plan(Wishes(name="mine", **wishes), IMAGE, CATALOGUE, known)  # type: ignore[arg-type]


@given(
    toggles=st.sets(st.sampled_from(TOGGLES), max_size=12),
    secrets=st.sets(st.sampled_from(sorted(SECRETS - {"RUNPOD_API_KEY"}))),
    count=st.integers(1, 9),
    disk=st.integers(0, 500),
    volume=st.one_of(st.none(), st.integers(0, 2000)),
    network=st.booleans(),
    cloud=st.sampled_from(["SECURE", "COMMUNITY"]),
    center=st.sampled_from(["", "US-KS-2", "EU-RO-1"]),
    price=st.one_of(st.none(), st.floats(0.1, 5)),
)
def test_every_plan_is_a_body_that_runpod_takes(
    toggles: set[str],
    secrets: set[str],
    count: int,
    disk: int,
    volume: int | None,
    network: bool,
    cloud: str,
    center: str,
    price: float | None,
) -> None:
    variables = dict.fromkeys(toggles, "true")
    if "ENABLE_R2_SYNC" in variables:
        variables["R2_ENDPOINT"] = "https://account.r2.example.com"
    try:
        made = planned(
            variables=variables,
            secrets=dict.fromkeys(secrets, ""),
            gpu_count=count,
            disk_gb=disk,
            volume_gb=volume,
            network_volume=Volume("vol", 300, "US-KS-2") if network else None,
            cloud=cloud,
            data_center=center,
            max_price=price,
        )
    except (PodError, HearmemanError):
        return
    body = made.body_for(made.choices[-1], "mark")
    assert schema.problems("CreatePodRequest", body) == []
    for update in (False, True):
        template_body(made.body, public=network, cuda=["12.8"], update=update)
    assert len(body["env"]) <= 50
    assert all(body["env"][name].startswith("{{ RUNPOD_SECRET_") for name in body["env"] if name in SECRETS)
    mounts = body.get("mounts", {})
    room = 300 if network else mounts["persistent"]["size"] if "persistent" in mounts else body["disk"]
    assert room * 1e9 >= made.model_bytes
    assert all(gpu.memory >= made.memory_gb for gpu in made.choices)
    assert [gpu.price for gpu in made.choices] == sorted(gpu.price or 0 for gpu in made.choices)


def test_the_volume_is_computed_from_the_models() -> None:
    small, large = planned(), planned(variables={"WAN_720P": "true", "ENABLE_VACE": "true"})
    assert large.model_bytes > 50e9
    assert large.body["mounts"]["persistent"]["size"] * 1e9 > large.model_bytes
    assert small.body["mounts"]["persistent"]["size"] == 20


def test_a_volume_that_is_too_small_is_refused_with_the_size_that_does() -> None:
    with pytest.raises(UsageError, match=r"the models need 23 GB but the volume has 15: give --volume 38"):
        planned(variables={"WAN_720P": "true", "ENABLE_CONTROLNET": "false"}, volume_gb=15)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"cloud": "COMMUNITY", "data_center": "US-KS-2"}, "Community Cloud takes no data centre"),
        ({"cloud": "COMMUNITY", "network_volume": Volume("v", 100, "US-KS-2")}, "only in Secure Cloud"),
        ({"network_volume": Volume("v", 100, "US-KS-2"), "data_center": "EU-RO-1"}, "is in US-KS-2, not in EU-RO-1"),
        ({"network_volume": Volume("v", 100, "US-KS-2"), "volume_gb": 30}, "not both"),
        ({"variables": {"HF_TOKEN": "hf_secretsecret"}}, "HF_TOKEN is a secret"),
        ({"secrets": {"WAN_480P": ""}}, "is not a secret"),
        ({"data_center": "NOWHERE"}, "such as US-KS-2"),
        ({"secrets": {"HF_TOKEN": "a }} b"}}, "letters, digits, dots"),
        ({"gpus": ("",)}, "--gpu is empty"),
        ({"gpus": ("4091",)}, "no such GPU; the nearest are"),
        ({"gpus": ("A100",)}, "give one of these names"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused_before_the_call(wishes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        planned(**wishes)  # type: ignore[arg-type]
    assert "hf_secretsecret" not in str(caught.value)


def test_no_gpu_that_fits_names_the_condition() -> None:
    with pytest.raises(NoCapacityError, match=r"at most \$0\.1 an hour"):
        planned(max_price=0.1)
    with pytest.raises(NoCapacityError, match="one free now"):
        planned(tuple(Gpu(gpu.id, gpu.memory, 1.0, "NONE") for gpu in GPUS))


@pytest.mark.parametrize("limit", ["IDLE_STOP_MINUTES", "MAX_MINUTES"])
def test_a_pod_that_nothing_ends_is_noted(limit: str) -> None:
    assert any("nothing ends the pod but you" in note for note in planned().notes)
    assert not any("nothing ends" in note for note in planned(variables={limit: "30"}).notes)
    assert not any("nothing ends" in note for note in planned(ends_itself=True).notes)


def test_a_network_volume_brings_its_quota_and_data_centre() -> None:
    body = planned(network_volume=Volume("vol", 200, "US-KS-2")).body
    assert body["mounts"] == {"network": [{"volumeId": "vol", "path": "/workspace"}]}
    assert (body["dataCenterIds"], body["env"]["VOLUME_SIZE_GB"]) == (["US-KS-2"], "200")


def test_the_sync_brings_its_two_keys_by_reference() -> None:
    body = planned(variables={"ENABLE_R2_SYNC": "true", "R2_ENDPOINT": "https://a.r2.example.com"}).body
    assert body["env"]["R2_ACCESS_KEY_ID"] == "{{ RUNPOD_SECRET_r2_access_key }}"
    assert body["env"]["R2_SECRET_ACCESS_KEY"] == "{{ RUNPOD_SECRET_r2_secret_key }}"


@pytest.mark.parametrize("name", sorted(RUNPOD_SECRETS))
def test_every_secret_can_be_given_by_its_name_alone(name: str) -> None:
    assert planned(secrets={name: ""}).body["env"][name] == f"{{{{ RUNPOD_SECRET_{RUNPOD_SECRETS[name]} }}}}"


def test_a_secret_may_have_a_name_of_its_own() -> None:
    body = planned(secrets={"HF_TOKEN": "my-hf"}).body
    assert body["env"]["HF_TOKEN"] == "{{ RUNPOD_SECRET_my-hf }}"


@pytest.mark.parametrize("reference", ["ghcr.io/a/b:latest", "ghcr.io/a/b", "ghcr.io/a/b@sha256:12"])
def test_a_tag_is_refused(reference: str) -> None:
    with pytest.raises(UsageError, match="has no digest"):
        from_reference(reference, "12.8")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"tier": "consumer"}]', "<<<<<<< HEAD", "[]"])
def test_a_damaged_or_empty_lock_of_images_says_what_to_do(tmp_path: Path, text: str) -> None:
    lock = tmp_path / "images.lock.json"
    for content in (None, text):
        if content is not None:
            lock.write_text(content)
        with pytest.raises(UsageError, match=r"nix run \.#push -- --tier consumer"):
            from_lock(lock, "consumer")


def test_the_newest_image_of_a_tier_is_taken(tmp_path: Path) -> None:
    old = {"tier": "t", "repository": "r.io/n", "digest": "sha256:" + "1" * 64, "size": 1, "date": "2026-01-02"}
    new = {**old, "digest": "sha256:" + "2" * 64, "date": "2026-03-01"}
    (tmp_path / "lock").write_text(json.dumps([new, old]))
    assert from_lock(tmp_path / "lock", "t").reference.endswith("2" * 64)
    new |= {"date": "2026-04-01", "defaults": {"A": "1"}, "recommended": {"B": "2"}}
    (tmp_path / "lock").write_text(json.dumps([new, old]))
    found = from_lock(tmp_path / "lock", "t")
    assert (found.defaults, found.recommended) == ({"A": "1"}, {"B": "2"})


TIER = replace(
    IMAGE,
    tier="prosumer",
    defaults={"QWEN_EDIT_MODEL": "Q8_0"},
    recommended={"WAN_720P": "true", "ENABLE_VIBEVOICE": "true"},
)


def test_what_the_tier_recommends_is_planned_where_no_model_was_chosen() -> None:
    def made(variables: dict[str, str], recommended: bool | None = None) -> Plan:
        return make_plan(Wishes("mine", variables, recommended=recommended), TIER, CATALOGUE, GPUS)

    plain = made({"ENABLE_R2_SYNC": "false", "SSH_PORT": "2222"})
    assert {"WAN_720P", "ENABLE_VIBEVOICE", "SSH_PORT"} <= set(plain.body["env"])
    assert "the prosumer image's recommendation is in it: WAN_720P=true, ENABLE_VIBEVOICE=true" in plain.notes[0]
    for chosen in ({"WAN_480P": "true"}, {"MODELS": "zimage-turbo"}, {"ENABLE_CONTROLNET": "false"}):
        env = made(chosen).body["env"]
        assert not {"WAN_720P", "ENABLE_VIBEVOICE"} & set(env), chosen
    both = made({"WAN_720P": "false", "WAN_480P": "true"}, True).body["env"]
    assert {"WAN_480P", "ENABLE_VIBEVOICE"} <= set(both) and "WAN_720P" not in both
    assert not {"WAN_720P", "ENABLE_VIBEVOICE"} & set(made({}, False).body["env"])


def test_the_volume_holds_what_the_images_own_defaults_choose() -> None:
    small, large = (
        make_plan(Wishes("mine", {"ENABLE_QWEN_EDIT": "true"}), image, CATALOGUE, GPUS)
        for image in (TIER, replace(TIER, defaults={"QWEN_EDIT_MODEL": "full"}))
    )
    assert large.model_bytes > small.model_bytes + 10e9
    # What holds in every pod of the image is not asked for once more.
    assert "QWEN_EDIT_MODEL" not in large.body["env"]


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_a_plan_for_another_tool_carries_the_digest_and_no_secret(form: str) -> None:
    body = planned(variables={"WAN_480P": "true"}, secrets={"HF_TOKEN": ""}).body
    text = FORMATS[form](body)
    assert REFERENCE in text and "WAN_480P" in text
    if form == "runpodctl":
        words = shlex.split(text)
        assert json.loads(words[words.index("--env") + 1])["HF_TOKEN"] == "{{ RUNPOD_SECRET_hf_token }}"
        assert words[words.index("--min-cuda-version") + 1] == "12.8"
    else:
        json.loads(text)


# As SkyPilot 0.14.1 (sky/provision/runpod/utils.py) and dstack 0.22.5 with gpuhunt 0.1.34 (providers/runpod.py) spell them.
SPELT = {
    "NVIDIA GeForce RTX 3090": ("RTX3090", "RTX3090"),
    "NVIDIA GeForce RTX 4090": ("RTX4090", "RTX4090"),
    "NVIDIA GeForce RTX 5090": ("RTX5090", "RTX5090"),
    "NVIDIA RTX A5000": ("RTXA5000", "A5000"),
    "NVIDIA RTX A6000": ("RTXA6000", "A6000"),
    "NVIDIA A40": ("A40", "A40"),
    "NVIDIA L4": ("L4", "L4"),
    "NVIDIA L40": ("L40", "L40"),
    "NVIDIA L40S": ("L40S", "L40S"),
    "NVIDIA RTX 6000 Ada Generation": ("RTX6000-Ada", "RTX6000Ada"),
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": ("RTXPRO6000", "RTXPRO6000"),
    "NVIDIA A100 80GB PCIe": ("A100-80GB", "A100"),
    "NVIDIA A100-SXM4-80GB": ("A100-80GB-SXM", "A100"),
    "NVIDIA H100 PCIe": ("H100", "H100"),
    "NVIDIA H100 80GB HBM3": ("H100-SXM", "H100"),
    "NVIDIA H100 NVL": ("H100-NVL", "H100NVL"),
    "NVIDIA H200": ("H200-SXM", "H200"),
    "NVIDIA B200": ("B200", "B200"),
}


@pytest.mark.parametrize("gpu", sorted({*SPELT, *(gpu.id for gpu in from_names())}))
def test_other_tools_are_told_of_a_gpu_by_the_name_that_they_know(gpu: str) -> None:
    body = {**planned().body, "gpu": {"id": gpu, "count": 2}}
    sky, dstack = json.loads(FORMATS["skypilot"](body)), json.loads(FORMATS["dstack"](body))
    assert (sky["resources"]["accelerators"], dstack["resources"]["gpu"]) == (
        {SPELT[gpu][0]: 2},
        {"name": SPELT[gpu][1], "count": 2},
    )


@pytest.mark.parametrize("name", ["Film Nr. 7", "7", "ä", "a" * 80, "hearmeman-1230"])
def test_a_name_for_other_tools_keeps_their_rule(name: str) -> None:
    body = {**planned().body, "name": name}
    for form in ("skypilot", "dstack"):
        assert re.fullmatch("[a-z][a-z0-9-]{1,40}", json.loads(FORMATS[form](body))["name"])


def test_what_another_tool_has_no_words_for_is_refused_and_a_data_centre_is_passed_on() -> None:
    body = planned(data_center="US-KS-2").body
    assert json.loads(FORMATS["skypilot"](body))["resources"]["infra"] == "runpod/*/US-KS-2"
    assert json.loads(FORMATS["dstack"](body))["regions"] == ["US-KS-2"]
    for wishes in ({"network_volume": Volume("v", 100, "US-KS-2")}, {"registry": "r"}):
        made = planned(**wishes).body
        assert FORMATS["runpodctl"](made)
        for form in ("skypilot", "dstack"):
            with pytest.raises(UsageError, match=f"--as {form} cannot name"):
                FORMATS[form](made)


def test_without_a_key_a_plan_shows_everything_but_the_price_and_asks_nobody(operator: Operator) -> None:
    operator.has_key = False
    code, out, _ = operator("plan", "--set", "WAN_480P=true")
    assert code == 0
    assert "unknown without an API key" in out and REFERENCE[:40] in out
    assert operator.runpod.requests == []


def test_with_a_key_a_plan_changes_nothing_and_shows_price_and_stock(operator: Operator) -> None:
    code, out, _ = operator("plan", "--set", "WAN_480P=true", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["price_per_hour"] == 0.69
    assert [gpu["price"] for gpu in found["gpus"]] == [0.69, 0.79, 0.89, 1.39]
    assert {method for method, _, _ in operator.runpod.requests} == {"GET"}


def test_wrong_variables_of_the_pod_are_found_here(operator: Operator) -> None:
    code, _, err = operator("plan", "--set", "WAN_48OP=true")
    assert code == 2 and "did you mean WAN_480P?" in err
    code, _, err = operator("plan", "--set", "COMFYUI_PORT=99999")
    assert code == 2 and "COMFYUI_PORT" in err


def test_a_variable_of_somebody_elses_is_passed_on() -> None:
    planned_env = planned(variables={"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}).body["env"]
    assert planned_env.pop("IMAGE_DIGEST").startswith("sha256:"), "recorded with outputs"
    assert planned_env == {"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu-count", "0"], "it is one or more"),
        (["--disk", "-5"], "'-5' is not a whole number"),
        (["--volume", "1e3"], "'1e3' is not a whole number"),
        (["--max-price", "nan"], "'nan' is not a number above zero"),
        (["--max-price", "cheap"], "'cheap' is not a number above zero"),
        (["--cloud", "COMMUNITY", "--datacenter", "us-ks-2"], "Community Cloud takes no data centre"),
    ],
)
def test_numbers_that_are_none_are_named(operator: Operator, words: list[str], said: str) -> None:
    code, _, err = operator("plan", *words)
    assert code == 2 and said in err, err


def test_a_body_that_breaks_a_rule_is_said_in_words_and_without_its_values() -> None:
    body = {**planned().body, "disk": 0, "name": "", "cloud": "hf_secretsecret"}
    body["gpu"] = {**body["gpu"], "count": 0}
    found = schema.problems("CreatePodRequest", body)
    assert {"disk: at least 1", "name: may not be empty", "gpu.count: at least 1"} <= set(found)
    assert not [text for text in found if "unevaluated" in text or "hf_secret" in text]
    assert schema.problems("CreatePodRequest", {**planned().body, "colour": "red"})
