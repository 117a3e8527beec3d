"""An endpoint is changed by the smallest request, which a person has seen; its environment keeps what nobody touched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearmeman.errors import HearmemanError
from hearmeman.settings import SECRETS
from hearmeman_pod import schema
from hearmeman_pod.endpoint_plan import POOLS
from hearmeman_pod.endpoint_update import Changes, differences, patch
from hearmeman_pod.errors import PodError
from hearmeman_pod.images import from_reference

from .conftest import REFERENCE, Operator
from .test_plan import CATALOGUE, IMAGE, TOGGLES

NEW = "ghcr.io/someone/hearmeman@sha256:" + "b" * 64
PLANTED = "planted-VALUE-of-a-secret"


@pytest.fixture
def made(operator: Operator) -> dict[str, Any]:
    words = ("--set", "ENABLE_ZIMAGE=true", "--secret", "HF_TOKEN")
    code, _, err = operator("endpoint", "create", "--name", "films", *words)
    assert code == 0, err
    # Somebody wrote these in RunPod's console.
    operator.runpod.endpoints["ep0"]["env"] |= {"CIVITAI_API_KEY": PLANTED, "MY_OWN": PLANTED}
    return operator.runpod.endpoints["ep0"]


def patches(operator: Operator) -> list[Any]:
    return [
        body for method, path, body in operator.runpod.requests if (method, path) == ("PATCH", "/v2/serverless/ep0")
    ]


def update(operator: Operator, *words: str) -> tuple[int, str, str]:
    code, out, err = operator("endpoint", "update", "films", *words)
    assert PLANTED not in out + err
    return code, out, err


def test_a_new_digest_is_all_that_changes(operator: Operator, made: dict[str, Any]) -> None:
    code, _, err = update(operator, "--image", NEW, "--yes")
    assert code == 0, err
    now = operator.runpod.endpoints["ep0"]
    assert set(patches(operator)[0]) == {"image", "env"}
    assert (now["image"], now["env"]) == (NEW, {**made["env"], "IMAGE_DIGEST": NEW.partition("@")[2]})
    assert {key: now[key] for key in ("gpu", "workers", "scaling", "disk")} == {
        key: made[key] for key in ("gpu", "workers", "scaling", "disk")
    }
    assert f"image: {REFERENCE} -> {NEW}" in err


def test_nothing_is_sent_before_somebody_agreed(operator: Operator, made: dict[str, Any]) -> None:
    code, _, err = update(operator, "--workers-max", "5", "--idle-seconds", "60")
    assert code == 2 and "workers.max: 3 -> 5" in err and "--yes" in err
    assert not patches(operator)
    code, out, _ = update(operator, "--workers-max", "5", "--idle-seconds", "60", "--yes", "--json")
    assert code == 0 and [change["what"] for change in json.loads(out)["changes"]] == [
        "workers.max",
        "workers.idleTimeout",
    ]
    assert patches(operator) == [{"workers": {"max": 5, "idleTimeout": 60}}]
    code, _, err = update(operator, "--workers-max", "5", "--yes")
    assert code == 0 and "nothing to change" in err and len(patches(operator)) == 1


def test_the_environment_keeps_what_nobody_touched(operator: Operator, made: dict[str, Any]) -> None:
    words = ("--set", "ENABLE_ILLUSTRIOUS=true", "--unset", "HF_TOKEN", "--set", "MY_OTHER=1")
    code, _, err = update(operator, *words, "--yes")
    assert code == 0, err
    now = operator.runpod.endpoints["ep0"]["env"]
    assert now == {
        **{name: value for name, value in made["env"].items() if name != "HF_TOKEN"},
        "ENABLE_ILLUSTRIOUS": "true",
        "MY_OTHER": "1",
    }
    assert "HF_TOKEN: {{ RUNPOD_SECRET_hf_token }} -> -" in err


def test_the_disk_grows_with_the_models(operator: Operator, made: dict[str, Any]) -> None:
    before = made["disk"]
    code, _, err = update(operator, "--set", "WAN_720P=true", "--yes")
    assert code == 0, err
    assert operator.runpod.endpoints["ep0"]["disk"] > before
    assert "new ones start with the new" not in err, "nobody was asked"


def test_the_sync_brings_its_keys_by_reference(operator: Operator, made: dict[str, Any]) -> None:
    words = ("--set", "ENABLE_R2_SYNC=true", "--set", "R2_ENDPOINT=https://a.r2.example.com")
    assert update(operator, *words, "--yes")[0] == 0
    assert operator.runpod.endpoints["ep0"]["env"]["R2_SECRET_ACCESS_KEY"] == "{{ RUNPOD_SECRET_r2_secret_key }}"


def test_a_floor_takes_the_place_of_a_list_of_cuda_versions(operator: Operator, made: dict[str, Any]) -> None:
    made["gpu"] |= {"minCudaVersion": None, "allowedCudaVersions": ["12.6"]}
    assert update(operator, "--image", NEW, "--pool", "ADA_48_PRO", "--yes")[0] == 0
    now = operator.runpod.endpoints["ep0"]["gpu"]
    assert now == {"pools": ["ADA_48_PRO"], "count": 1, "minCudaVersion": "12.8", "allowedCudaVersions": []}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", f"HF_TOKEN={PLANTED}"), "HF_TOKEN is a secret"),
        (("--set", "ENABLE_ZIMAGES=true"), "did you mean ENABLE_ZIMAGE?"),
        (("--set", "COMFYUI_PORT=99999"), "COMFYUI_PORT"),
        (("--secret", "WAN_480P"), "is not a secret"),
        (("--unset", "WAN_480P"), "has no such variable"),
        (("--unset", "HF_TOKEN", "--secret", "HF_TOKEN"), "both set and unset"),
        (("--set", "HEARMEMAN_ORDER=1"), "written by this command"),
        (("--workers-min", "9"), "at most 3 workers, and 9 that always run"),
        (("--workers-max=-1",), "not a whole number"),
        (("--idle-seconds", "9999"), "workers.idleTimeout"),
        (("--requests", "4"), "give --queue-delay"),
        (("--queue-delay", "0.1"), "RunPod would refuse"),
        (("--pool", "ADA_25"), "choose from"),
        (("--image", "ghcr.io/someone/hearmeman:latest"), "has no digest"),
        (("--image", NEW, "--tier", "consumer"), "not allowed with"),
    ],
)
def test_what_would_be_refused_is_not_sent(
    operator: Operator, made: dict[str, Any], words: tuple[str, ...], said: str
) -> None:
    code, _, err = update(operator, *words, "--yes")
    assert code == 2 and said in err, err
    assert not patches(operator)


@pytest.mark.parametrize(("fault", "expected", "most"), [("drop-after", 0, 5), ("500-before", 1, 3)])
def test_an_update_without_an_answer_is_looked_after(
    operator: Operator, made: dict[str, Any], fault: str, expected: int, most: int
) -> None:
    operator.runpod.patches.append(fault)
    code, _, err = update(operator, "--workers-max", "5", "--yes")
    assert (code, operator.runpod.endpoints["ep0"]["workers"]["max"]) == (expected, most), err
    assert "checking what became of it" in err


NAMES = st.sampled_from([*TOGGLES, "MY_OWN", "COMFYUI_ARGS", "MODELS", "R2_ENDPOINT", "GPU_TIER"])
VALUES = st.sampled_from(["true", "false", "", "--lowvram", "consumer", "https://a.r2.example.com"])


@given(
    present=st.dictionaries(NAMES, VALUES, max_size=6),
    hidden=st.sets(st.sampled_from(sorted(SECRETS)), max_size=4),
    variables=st.dictionaries(NAMES, VALUES, max_size=6),
    secrets=st.sets(st.sampled_from(sorted(SECRETS - {"RUNPOD_API_KEY"})), max_size=4),
    pools=st.lists(st.sampled_from(POOLS), max_size=4),
    least=st.one_of(st.none(), st.integers(-1, 9)),
    most=st.one_of(st.none(), st.integers(-1, 9)),
    idle=st.one_of(st.none(), st.integers(0, 4000)),
    flashboot=st.one_of(st.none(), st.booleans()),
    delay=st.one_of(st.none(), st.floats(0, 60)),
    new=st.booleans(),
)
def test_every_update_is_a_body_that_runpod_takes_and_shows_no_secret(
    present: dict[str, str],
    hidden: set[str],
    variables: dict[str, str],
    secrets: set[str],
    pools: list[str],
    least: int | None,
    most: int | None,
    idle: int | None,
    flashboot: bool | None,
    delay: float | None,
    new: bool,
) -> None:
    endpoint = {
        "id": "ep0",
        "name": "films -fb",
        "image": REFERENCE,
        "disk": 20,
        "env": {**present, **dict.fromkeys(hidden, PLANTED), "HEARMEMAN_ORDER": "mark"},
        "gpu": {"pools": ["ADA_24"], "count": 1, "minCudaVersion": "12.8", "allowedCudaVersions": []},
        "workers": {"min": 0, "max": 3, "idleTimeout": 10},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
        "flashboot": "FLASHBOOT",
        "timeout": 300000,
    }
    image = from_reference(NEW, "12.9") if new else IMAGE
    changes = Changes(
        image=image if new else None,
        variables=variables,
        secrets=dict.fromkeys(secrets, ""),
        pools=tuple(pools),
        least=least,
        most=most,
        idle_seconds=idle,
        flashboot=flashboot,
        delay_seconds=delay,
    )
    try:
        body = patch(endpoint, changes, image, CATALOGUE)
    except (PodError, HearmemanError) as error:
        assert PLANTED not in str(error)
        return
    assert schema.problems("UpdateEndpointRequest", body) == []
    assert PLANTED not in repr(differences(endpoint, body))
    if "env" in body:
        assert body["env"]["HEARMEMAN_ORDER"] == "mark"
        assert hidden - secrets <= {name for name, value in body["env"].items() if value == PLANTED}
