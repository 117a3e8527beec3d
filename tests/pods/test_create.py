"""Creating a pod: at most one is alive whatever happens, and none after a failure."""

from __future__ import annotations

import json
import shutil
import signal
from collections import deque

import pytest

from fakes.runpod import RunPod
from hearmeman_pod import api, create
from support.repository import ROOT

from .conftest import REFERENCE, Operator

NAMED = ("create", "--name", "mine", "--set", "WAN_480P=true")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(create, "_TERMINATE_PAUSE", 0.05)


def creates(runpod: RunPod) -> int:
    return sum(method == "POST" and path == "/v2/pods" for method, path, _ in runpod.requests)


def test_the_pod_is_made_from_the_digest_and_waited_for(operator: Operator, runpod: RunPod) -> None:
    code, out, err = operator(*NAMED)
    assert code == 0, err
    assert runpod.live == ["pod0"]
    body = runpod.pods["pod0"].body
    assert body["image"] == REFERENCE
    assert body["gpu"] == {"id": "NVIDIA GeForce RTX 4090", "count": 1, "minCudaVersion": "12.8"}
    assert body["mounts"]["persistent"]["path"] == "/workspace"
    assert {"8188/http", "19123/http", "22/tcp"} <= set(body["ports"])
    assert "models 50 %" in err and "ready" in err
    assert "/proxy/pod0/8188" in out


@pytest.mark.parametrize("what", ["500-after", "drop-after", "late"])
def test_a_create_without_an_answer_is_found_and_adopted(operator: Operator, runpod: RunPod, what: str) -> None:
    runpod.creates = deque([what])
    code, _, err = operator(*NAMED)
    assert code == 0, err
    assert (runpod.live, creates(runpod)) == (["pod0"], 1)
    assert "it was created: pod0" in err


@pytest.mark.parametrize("what", ["500-before", "html"])
def test_a_create_that_failed_for_sure_goes_on_with_the_next_gpu(operator: Operator, runpod: RunPod, what: str) -> None:
    runpod.creates = deque([what])
    code, _, err = operator(*NAMED)
    assert code == 0, err
    assert len(runpod.live) == 1
    assert runpod.pods[runpod.live[0]].body["gpu"]["id"] == "NVIDIA RTX A6000"


def test_without_capacity_the_next_gpu_is_asked_for(operator: Operator, runpod: RunPod) -> None:
    runpod.creates = deque(["capacity"])
    code, _, err = operator(*NAMED)
    assert code == 0, err
    assert "no longer any instances" in err
    assert (len(runpod.live), creates(runpod)) == (1, 2)


def test_no_capacity_anywhere_has_an_exit_code_of_its_own_and_leaves_nothing(
    operator: Operator, runpod: RunPod
) -> None:
    runpod.creates = deque(["capacity", "forbidden", "capacity", "capacity"])
    code, _, err = operator(*NAMED)
    assert (code, runpod.live) == (4, [])
    assert "RTX 5090" in err and "RTX A6000" in err


def test_no_credit_ends_it_at_once(operator: Operator, runpod: RunPod) -> None:
    runpod.creates = deque(["broke"])
    code, _, err = operator(*NAMED)
    assert (code, runpod.live, creates(runpod)) == (1, [], 1)
    assert "credit" in err


def test_a_busy_runpod_is_waited_for_as_it_asks(operator: Operator, runpod: RunPod) -> None:
    runpod.creates = deque(["busy", "busy"])
    code, _, err = operator(*NAMED)
    assert code == 0, err
    assert (len(runpod.live), creates(runpod)) == (1, 3)


def test_a_pod_of_that_name_is_not_made_twice(operator: Operator, runpod: RunPod) -> None:
    assert operator(*NAMED)[0] == 0
    code, _, err = operator(*NAMED)
    assert (code, runpod.live) == (2, ["pod0"])
    assert "exists (pod0" in err


def test_a_pod_dearer_than_allowed_is_ended(operator: Operator, runpod: RunPod) -> None:
    runpod.cost = 0.95
    code, _, err = operator(*NAMED, "--max-price", "0.80")
    assert (code, runpod.live) == (1, [])
    assert "$0.950 an hour" in err


@pytest.mark.parametrize("state", ["ERROR", "EXITED"])
def test_a_pod_that_fails_is_ended_and_runpods_words_are_shown(operator: Operator, runpod: RunPod, state: str) -> None:
    runpod.ends_as = state
    code, _, err = operator(*NAMED)
    assert (code, runpod.live) == (1, [])
    assert state in err and "pulling image" in err


def test_a_pod_that_never_becomes_ready_is_ended_at_the_deadline(operator: Operator, runpod: RunPod) -> None:
    runpod.ready_after = 10**9
    code, _, err = operator(*NAMED, "--minutes", "0.01")
    assert (code, runpod.live) == (1, [])
    assert "not ready within" in err


def test_keep_leaves_a_failed_pod_to_be_looked_into(operator: Operator, runpod: RunPod) -> None:
    runpod.ready_after = 10**9
    code, _, err = operator(*NAMED, "--minutes", "0.01", "--keep")
    assert (code, runpod.live) == (1, ["pod0"])
    assert "keeps running and costs" in err


@pytest.mark.parametrize("fault", ["500-before", "drop-after"])
def test_a_terminate_that_fails_is_tried_again(operator: Operator, runpod: RunPod, fault: str) -> None:
    runpod.ends_as = "ERROR"
    runpod.deletes = deque([fault, "ok"])
    code, _, err = operator(*NAMED)
    assert (code, runpod.live) == (1, [])
    assert "is terminated" in err


def test_a_pod_that_cannot_be_ended_is_shouted_about(
    operator: Operator, runpod: RunPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(create, "_TERMINATE_TRIES", 2)
    runpod.made({"name": "mine", "image": REFERENCE, "gpu": {"id": "x", "count": 1}}, "RUNNING")
    runpod.deletes = deque(["409", "409"])
    code, _, err = operator("terminate", "pod0", "--yes")
    assert code == 1
    assert "STILL COSTS MONEY" in err


def test_behind_the_gate_its_token_shows_progress_and_without_it_life_is_enough(
    operator: Operator, runpod: RunPod
) -> None:
    runpod.gate = "a-token-of-the-gate"
    code, _, err = operator(*NAMED, "--secret", "ACCESS_TOKEN")
    assert code == 0 and "set ACCESS_TOKEN here" in err
    assert runpod.pods["pod0"].body["env"]["ACCESS_TOKEN"] == "{{ RUNPOD_SECRET_access_token }}"
    operator.token = runpod.gate
    code, _, err = operator("create", "--name", "second", "--secret", "ACCESS_TOKEN")
    assert code == 0 and "models 50 %" in err
    assert runpod.gate not in err


def test_json_is_the_only_thing_on_standard_output(operator: Operator) -> None:
    code, out, _ = operator(*NAMED, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["id"], found["status"]) == ("pod0", "RUNNING")
    assert "HEARMEMAN_ORDER" not in found["variables"]


def test_a_pod_that_shows_up_after_its_successor_is_ended(operator: Operator, runpod: RunPod) -> None:
    runpod.creates = deque(["overtaken"])
    code, _, err = operator(*NAMED)
    assert code == 0, err
    assert (runpod.live, creates(runpod)) == (["pod1"], 2)
    assert "pod0 is terminated" in err


@pytest.mark.parametrize("when", [["interrupted"], ["interrupted-later"], ["500-before", "then-interrupted"]])
@pytest.mark.parametrize("verb", [NAMED, ("run", "smoke-image", "--out", "pictures")])
def test_ctrl_c_during_a_create_ends_a_pod_that_is_listed_late(
    operator: Operator, runpod: RunPod, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...], when: list[str]
) -> None:
    shutil.copytree(ROOT / "workflows", operator.root / "workflows")
    monkeypatch.chdir(operator.root)
    runpod.creates = deque(when)
    code, _, err = operator(*verb)
    assert code == 130, err
    assert (runpod.live, len(runpod.pods)) == ([], 1), err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_during_a_create_leaves_no_pod_that_nobody_knows(
    operator: Operator, runpod: RunPod, number: signal.Signals
) -> None:
    runpod.interrupts_by, runpod.creates = number, deque(["interrupted"])
    code, _, err = operator(*NAMED)
    assert (code, runpod.live, len(runpod.pods)) == (130, [], 1), err
