"""tests/acceptance/real_pod.py against RunPod's API on loopback: its steps pass, and no pod is left after any of them failed."""

from __future__ import annotations

import datetime
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acceptance import real_pod
from acceptance.real_pod import Done, Row, Step, StepError, Trip
from fakes.comfyui import ComfyUI, comfyui
from fakes.r2 import R2
from fakes.runpod import KEY, RunPod
from hearmeman_pod import create, files
from hearmeman_pod.errors import UsageError
from support.ports import free_port
from support.repository import ROOT
from support.waiting import PATIENCE, wait_for

from .conftest import Operator

TOKEN = "the-secret-of-this-account"
WITHOUT_SSH = [step for step in real_pod.STEPS if step[0] not in ("SSH", "put and get")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    with comfyui(tmp_path_factory.mktemp("pod")) as running:
        yield running


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2(bucket="films") as running:
        yield running


@pytest.fixture
def trip(operator: Operator, runpod: RunPod, server: ComfyUI, r2: R2, tmp_path: Path) -> Trip:
    operator.more, operator.token = r2.environ(), TOKEN
    runpod.gate, runpod.comfyui, runpod.ssh_port = TOKEN, server.url, free_port()
    environ = {**os.environ, **r2.environ(), "ACCESS_TOKEN": TOKEN, "RUNPOD_API_KEY": KEY}
    elsewhere = real_pod.processes({**environ, "PYTHONPATH": str(ROOT / "python")})

    def run(module: str, *words: str) -> Done:
        return Done(*operator(*words)) if module == "hearmeman_pod" else elsewhere(module, *words)

    return Trip(run, environ, "real-pod-1", tmp_path / "trip", pause=0.02, patience=0.5)


def the_pod_syncs(r2: R2) -> Step:
    """What the pod does with a picture, between the steps."""

    def lay(trip: Trip) -> str:
        assert trip.picture is not None
        r2.lay(f"outputs/{trip.name}/{trip.picture.name}", trip.picture.read_bytes())
        return ""

    return "the pod's sync", lay


def minutes_pass(runpod: RunPod) -> Step:
    def hurry(trip: Trip) -> str:
        runpod.minute = 0.001
        return ""

    return "minutes pass", hurry


def test_the_steps_pass_and_leave_figures(trip: Trip, runpod: RunPod, r2: R2) -> None:
    steps = list(WITHOUT_SSH)
    steps.insert(3, the_pod_syncs(r2))
    steps.insert(5, minutes_pass(runpod))
    rows: list[Row] = []
    real_pod.travel(trip, rows, steps)
    assert [what for what, _, _ in rows] == [what for what, _ in steps]
    (pod,) = runpod.pods.values()
    assert (pod.status, runpod.live) == ("TERMINATED", [])
    assert "@sha256:" in pod.body["image"] and pod.body["env"]["MAX_MINUTES"] == "60"
    assert pod.body["env"]["ACCESS_TOKEN"] == "{{ RUNPOD_SECRET_access_token }}" and TOKEN not in str(pod.body)
    lines = real_pod.figures(rows, datetime.date(2026, 11, 26)).splitlines()
    assert lines[0].startswith("| on RunPod, 26 November 2026: create by digest, until ready | ")
    assert "CUDA 12.8, $0.69 an hour |" in lines[0]


def never_ready(runpod: RunPod) -> None:
    runpod.ends_as = "ERROR"


def created_without_an_answer(runpod: RunPod) -> None:
    runpod.creates.append("drop-after")
    runpod.ends_as = "ERROR"


def open_to_all(runpod: RunPod) -> None:
    runpod.gate = ""
    runpod.comfyui = ""


def no_comfyui(runpod: RunPod) -> None:
    runpod.comfyui = "http://127.0.0.1:9"


def no_sync_and_no_sshd(runpod: RunPod) -> None:
    """As the loopback is."""


def no_minute_passes(runpod: RunPod) -> None:
    runpod.minute = 10**9


def stubborn(runpod: RunPod) -> None:
    runpod.minute = 0.001
    runpod.deletes.extend(["500-before"] * 7)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("create by digest, until ready", never_ready),
        ("create by digest, until ready", created_without_an_answer),
        ("gate", open_to_all),
        ("workflow", no_comfyui),
        ("object in the bucket", no_sync_and_no_sshd),
        ("SSH", no_sync_and_no_sshd),
        ("put and get", no_sync_and_no_sshd),
        ("idle stop", no_minute_passes),
        ("terminate", stubborn),
    ],
)
def test_no_pod_is_left_when_a_step_fails(
    trip: Trip, runpod: RunPod, name: str, fault: Callable[[RunPod], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PAUSE", 0.01)
    monkeypatch.setattr(create, "_TERMINATE_PAUSE", 0.001)
    monkeypatch.setattr(real_pod, "IDLE_MINUTES", 6.0 if name != "idle stop" else 0.001)
    trip.folder.mkdir()
    trip.picture = trip.folder / "picture.png"
    trip.picture.write_bytes(b"picture")
    fault(runpod)
    rows: list[Row] = []
    steps = [step for step in real_pod.STEPS if step[0] in ("create by digest, until ready", name)]
    with pytest.raises(StepError):
        real_pod.travel(trip, rows, steps)
    assert len(rows) == len(steps) - 1, "another step failed"
    assert (runpod.live, len(runpod.pods)) == ([], 1)
    assert {pod.status for pod in runpod.pods.values()} == {"TERMINATED"}


def test_a_pod_that_cannot_be_ended_is_shouted_about(
    trip: Trip, runpod: RunPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(create, "_TERMINATE_PAUSE", 0.001)
    runpod.deletes.extend(["500-before"] * 100)
    with pytest.raises(StepError, match="MAY STILL RUN AND COST MONEY"):
        real_pod.travel(trip, [], [real_pod.STEPS[0], ("more", real_pod.shell)])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_pod(
    trip: Trip, operator: Operator, runpod: RunPod, number: signal.Signals, tmp_path: Path
) -> None:
    runpod.ready_after = 10**6
    environ = {**trip.environ, "PYTHONPATH": f"{ROOT / 'python'}:{ROOT / 'tests'}", "HOME": str(tmp_path)}
    environ |= {"HEARMEMAN_ROOT": str(operator.root), "RUNPOD_API_URL": runpod.url, "HEARMEMAN_PROXY": runpod.proxy}
    words = [sys.executable, str(ROOT / "tests/acceptance/real_pod.py"), "--yes"]
    process = subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: runpod.live or process.poll() is not None, "a pod")
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert (runpod.live, len(runpod.pods)) == ([], 1), err


def test_it_says_what_it_spends_and_asks(
    trip: Trip, runpod: RunPod, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert not real_pod.asked(trip, yes=False)
    said = capsys.readouterr().err
    assert "@sha256:" in said and "at most $0.80" in said and "bucket films" in said
    trip.max_price = 1.2
    with pytest.raises(UsageError, match=r"could cost \$1.20"):
        real_pod.asked(trip, yes=True)
    trip.environ = {"RUNPOD_API_KEY": KEY}
    with pytest.raises(UsageError, match="ACCESS_TOKEN, R2_ENDPOINT"):
        real_pod.asked(trip, yes=True)
    assert runpod.pods == {}
