"""What goes wrong between a laptop and RunPod: never more than one live pod, and none after a failure."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from fakes.runpod import KEY, RunPod
from hearmeman.workflows import client
from hearmeman_pod import api, create, logs, ready, verbs
from hearmeman_pod.api import Api
from hearmeman_pod.errors import ApiError
from support.repository import ROOT

from .conftest import Operator
from .test_verbs import BODY

VERBS: dict[str, tuple[str, ...]] = {
    "create": ("create", "--name", "mine", "--set", "WAN_480P=true", "--max-price", "0.80"),
    "run": ("run", "smoke-image", "--out", "pictures", "--max-price", "0.80"),
}
ENDLESS = 10**6


@pytest.fixture(autouse=True)
def _short_pauses(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(create, "_TERMINATE_PAUSE", 0.01)
    monkeypatch.setattr(create, "_LOOK_PAUSE", 0.01)
    monkeypatch.setattr(ready, "_LOG_PAUSE", 0.05)
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(verbs, "_START_PAUSE", 0.01)
    shutil.copytree(ROOT / "workflows", operator.root / "workflows")
    monkeypatch.chdir(operator.root)


def no_key(operator: Operator) -> None:
    operator.has_key = False


def wrong_key(operator: Operator) -> None:
    operator.runpod.key = "another"


def no_credit(operator: Operator) -> None:
    operator.runpod.creates.append("broke")


def no_gpu_free(operator: Operator) -> None:
    operator.runpod.creates.extend(["capacity"] * 9)


def quota(operator: Operator) -> None:
    operator.runpod.creates.extend(["quota"] * 9)


def a_rule_broken(operator: Operator) -> None:
    operator.runpod.creates.extend(["rule"] * 9)


def busy_for_ever(operator: Operator) -> None:
    operator.runpod.creates.extend(["busy"] * 9)


def a_gateway_page_instead_of_each_create(operator: Operator) -> None:
    operator.runpod.creates.extend(["html"] * 9)


def the_list_unreadable_after_a_create_without_an_answer(operator: Operator) -> None:
    operator.runpod.creates.append("drop-after")
    # The first list looks for the name.
    operator.runpod.lists.extend(["ok", *["500"] * 6])


def a_private_image(operator: Operator) -> None:
    operator.runpod.ends_as = "STARTING"
    operator.runpod.system_logs = ("pulling image", "error pulling image: unauthorized: authentication required")


def an_absent_digest(operator: Operator) -> None:
    operator.runpod.ends_as = "STARTING"
    operator.runpod.system_logs = ("image pull failed: manifest unknown",)


def never_ready(operator: Operator) -> None:
    operator.runpod.ready_after = ENDLESS


def an_error(operator: Operator) -> None:
    operator.runpod.ends_as = "ERROR"


def ended_by_somebody(operator: Operator) -> None:
    operator.runpod.reads.extend(["ok", "gone"])


def a_login_page_from_then_on(operator: Operator) -> None:
    operator.runpod.reads.extend(["ok", *["html"] * 999])


def the_state_unreadable_from_then_on(operator: Operator) -> None:
    operator.runpod.reads.extend(["ok", *["500"] * 999])


def dearer_than_said(operator: Operator) -> None:
    operator.runpod.later_cost = 1.49


def a_deaf_delete_after_an_error(operator: Operator) -> None:
    operator.runpod.ends_as = "ERROR"
    operator.runpod.deletes.extend(["500-before", "drop-after", "409"])


FAILURES: dict[Callable[[Operator], None], tuple[int, str]] = {
    no_key: (2, "no API key"),
    wrong_key: (1, "the key is not valid"),
    no_credit: (1, "too little credit"),
    no_gpu_free: (4, "no longer any instances"),
    quota: (4, "maximum number of pods"),
    a_rule_broken: (4, "mounts.network: remove it, or mounts.persistent"),
    busy_for_ever: (1, "wait a minute"),
    a_gateway_page_instead_of_each_create: (4, "RunPod failed to make it"),
    the_list_unreadable_after_a_create_without_an_answer: (1, "is terminated"),
    a_private_image: (1, "--registry"),
    an_absent_digest: (1, "no image of this digest"),
    never_ready: (1, "not ready within"),
    an_error: (1, "is ERROR"),
    ended_by_somebody: (1, "is gone"),
    a_login_page_from_then_on: (1, "is not RunPod"),
    the_state_unreadable_from_then_on: (1, "cannot be read"),
    dearer_than_said: (1, "$1.490 an hour, more than --max-price 0.8"),
    a_deaf_delete_after_an_error: (1, "is terminated"),
}

TIMED = (never_ready, a_login_page_from_then_on, the_state_unreadable_from_then_on)
"""What goes on until the time is over."""


@pytest.mark.parametrize("verb", sorted(VERBS))
@pytest.mark.parametrize("fault", FAILURES, ids=lambda fault: fault.__name__)
def test_none_is_left_after_a_failure(operator: Operator, fault: Callable[[Operator], None], verb: str) -> None:
    fault(operator)
    code, _, err = operator(*VERBS[verb], "--minutes", "0.02" if fault in TIMED else "10")
    expected, words = FAILURES[fault]
    assert (code, operator.runpod.live) == (expected, []), err
    assert operator.runpod.most_live <= 1
    assert words in err


@pytest.mark.parametrize("what", ["html-after", "empty-after", "drop-after", "500-after"])
def test_a_create_whose_answer_says_nothing_is_found_by_its_mark(operator: Operator, what: str) -> None:
    operator.runpod.creates.append(what)
    code, _, err = operator("create", "--name", "mine")
    assert (code, operator.runpod.live, operator.runpod.most_live) == (0, ["pod0"], 1), err


def test_an_answer_that_lacks_what_it_should_hold_is_named(operator: Operator) -> None:
    operator.runpod.lists.append("odd")
    code, out, err = operator("list")
    assert (code, out) == (1, "") and "RunPod's answer lacks `pods`" in err


@pytest.mark.parametrize("what", ["500", "html", "drop", "odd"])
def test_a_bad_answer_while_it_waits_ends_nothing(operator: Operator, what: str) -> None:
    operator.runpod.reads.extend(["ok", *[what] * 7, "ok"])
    code, _, err = operator("create", "--name", "mine")
    assert (code, operator.runpod.live, operator.runpod.most_live) == (0, ["pod0"], 1), err


def test_the_log_that_breaks_does_not_keep_a_failed_pod(operator: Operator) -> None:
    operator.runpod.ends_as = "ERROR"
    operator.runpod.break_logs = True
    code, _, err = operator(*VERBS["create"])
    assert (code, operator.runpod.live) == (1, [])
    assert "it cannot be read" in err


def test_a_stop_that_runpod_refuses_is_explained_and_changes_nothing(operator: Operator) -> None:
    operator.runpod.made(dict(BODY), "RUNNING")
    operator.runpod.actions.append("409")
    code, _, err = operator("stop", "mine")
    assert (code, operator.runpod.live) == (1, ["pod0"])
    assert "409 Conflict: a network volume is attached" in err and "hearmeman-pod list" in err


def test_a_stop_without_an_answer_is_looked_after(operator: Operator) -> None:
    operator.runpod.made(dict(BODY), "RUNNING")
    operator.runpod.actions.append("drop-after")
    code, out, err = operator("stop", "mine")
    assert (code, operator.runpod.live) == (0, []), err
    assert "pod0 is EXITED" in out and "checking what became of it" in err


def test_a_stop_that_was_lost_on_its_way_is_tried_again(operator: Operator) -> None:
    operator.runpod.made(dict(BODY), "RUNNING")
    operator.runpod.actions.append("drop-before")
    code, _, err = operator("stop", "mine")
    assert (code, operator.runpod.live) == (1, ["pod0"]) and "it was not done, try again" in err
    assert operator("stop", "mine")[0] == 0 and operator.runpod.live == []


def test_a_pod_that_comes_back_on_an_older_driver_is_stopped_again(operator: Operator) -> None:
    operator.runpod.made(dict(BODY), "EXITED")
    operator.runpod.resumed_cuda = "12.4"
    code, _, err = operator("start", "mine")
    assert (code, operator.runpod.live) == (1, []), err
    assert "came back on a host with CUDA 12.4, and the image needs 12.8" in err
    code, out, _ = operator("start", "mine", "--force")
    assert (code, operator.runpod.live) == (0, ["pod0"]) and "RUNNING" in out


def test_a_log_stream_goes_on_after_the_last_line_by_its_event_id(operator: Operator) -> None:
    operator.runpod.made(dict(BODY), "RUNNING")
    operator.runpod.logs, operator.runpod.cut_logs = ("one", "two", "three"), True
    lines = logs.follow(Api(KEY, operator.runpod.url), "pod0", sleep=lambda seconds: None)
    assert [next(lines)[2] for _ in range(3)] == ["one", "two", "three"]
    assert operator.runpod.resumed_from == ["", "2026-11-25T12:00:00Z", "2026-11-25T12:00:01Z"]


def test_an_error_is_shown_as_a_person_reads_it() -> None:
    error = ApiError(
        "create the pod", 422, "Unprocessable Entity", "the request is wrong", ("disk: too small", "env: …")
    )
    assert str(error).splitlines() == [
        "RunPod refused to create the pod: 422 Unprocessable Entity: the request is wrong",
        "  disk: too small",
        "  env: …",
    ]


@pytest.mark.parametrize(
    ("stated", "seconds"),
    [("7", 7.0), ("Fri, 15 Jan 2027 08:00:05 GMT", 5.0), ("soon", 2.0), ("999999", 60.0)],
)
def test_retry_after_is_kept_in_seconds_and_as_a_date(
    runpod: RunPod, monkeypatch: pytest.MonkeyPatch, stated: str, seconds: float
) -> None:
    monkeypatch.setattr(api, "_LONGEST_PAUSE", 60.0)
    runpod.retry_after = stated
    runpod.lists.append("busy")
    waited: list[float] = []
    Api(KEY, runpod.url, sleep=waited.append, now=lambda: 1_800_000_000.0).get("/v2/pods", "list the pods")
    assert waited == [seconds]
