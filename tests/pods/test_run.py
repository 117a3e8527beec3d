"""`hearmeman-pod run`: the files are here and no pod is left, however it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes import film_comfyui
from fakes.comfyui import ComfyUI, comfyui
from fakes.runpod import KEY, RunPod
from hearmeman_pod.run import LARGEST_UPLOAD
from support.media import picture
from support.repository import ROOT
from support.waiting import PATIENCE, wait_for

from .conftest import ENTRY, Operator


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    with comfyui(tmp_path_factory.mktemp("pod")) as running:
        yield running


@pytest.fixture
def ready(operator: Operator, runpod: RunPod, server: ComfyUI) -> Operator:
    """An operator whose checkout has the workflows, and whose pods have a ComfyUI."""
    shutil.copytree(ROOT / "workflows", operator.root / "workflows")
    runpod.comfyui = server.url
    return operator


def words(folder: Path, *more: str) -> tuple[str, ...]:
    return ("run", "smoke-image", "--set", "width=64", "--out", str(folder), *more)


def test_the_files_are_here_and_the_pod_is_gone(ready: Operator, runpod: RunPod, tmp_path: Path) -> None:
    code, _, err = ready(*words(tmp_path / "out"))
    assert code == 0, err
    assert [path.suffix for path in (tmp_path / "out").rglob("*.*")] == [".png"]
    assert (runpod.live, len(runpod.pods)) == ([], 1)
    assert "pod0 is terminated" in err and "at most $0.01" in err
    env = runpod.pods["pod0"].body["env"]
    assert (env["WAIT_FOR_MODELS"], env["IDLE_ACTION"], env["MAX_MINUTES"]) == ("true", "terminate", "100")
    # A token of its own, which nothing prints.
    assert len(env["ACCESS_TOKEN"]) > 20 and env["ACCESS_TOKEN"] not in err


def test_models_and_memory_follow_from_the_workflow(ready: Operator, runpod: RunPod, tmp_path: Path) -> None:
    picture = tmp_path / "in.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 64)
    code, _, err = ready(
        "run", "wan22-i2v", "--picture", str(picture), "--out", str(tmp_path / "out"), "--minutes", "0.01"
    )
    assert code != 0 and runpod.live == []
    (pod,) = runpod.pods.values()
    assert "wan" in pod.body["env"]["MODELS"] and pod.body["mounts"]["persistent"]["size"] > 40, err


def test_a_plan_by_workflow_names_its_models(ready: Operator) -> None:
    code, out, err = ready("plan", "--workflow", "wan22-i2v", "--set", "MODELS=zimage-turbo", "--json")
    assert code == 0, err
    models = json.loads(out)["body"]["env"]["MODELS"].split(",")
    assert models[0] == "zimage-turbo" and any("wan22" in model for model in models)
    assert ready("plan", "--workflow", "wan22-i2w")[0] == 2


def test_a_workflow_without_models_is_planned_without_any(ready: Operator) -> None:
    recommending = {**ENTRY, "defaults": {}, "recommended": {"WAN_480P": "true"}}
    (ready.root / "images.lock.json").write_text(json.dumps([recommending]))
    code, out, err = ready("plan", "--json")
    assert code == 0 and json.loads(out)["body"]["env"]["WAN_480P"] == "true", err
    code, out, err = ready("plan", "--workflow", "smoke-image", "--json")
    assert code == 0 and "WAN_480P" not in json.loads(out)["body"]["env"], err


def test_events_and_the_bill_are_json_lines(ready: Operator, tmp_path: Path) -> None:
    code, out, _ = ready(*words(tmp_path / "out", "--json"))
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert events[-1]["event"] == "pod" and events[-1]["state"] == "terminated"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--set", "widt=1"), "width"),
        (("--set", "height=banana"), "height"),
        (("--keep",), "--secret ACCESS_TOKEN"),
        (("--secret", "ACCESS_TOKEN"), "variable ACCESS_TOKEN here"),
        (("--timeout", "0"), "above 0"),
        (("--variable", "HF_TOKEN=x"), "secret"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_paid_for(
    ready: Operator, runpod: RunPod, tmp_path: Path, more: tuple[str, ...], says: str
) -> None:
    code, _, err = ready(*words(tmp_path / "out", *more))
    assert code == 2 and says in err
    assert runpod.pods == {}


def test_a_token_of_ones_own_is_given_as_advised(ready: Operator, tmp_path: Path) -> None:
    code, _, err = ready(*words(tmp_path / "out", "--keep"))
    [option] = re.findall(r"--keep needs (--secret ACCESS_TOKEN)", err)
    code, _, err = ready(*words(tmp_path / "out", "--keep", *option.split()))
    [name] = re.findall(r"put the secret's value into the variable (\w+) here as well", err)
    assert (code, name) == (2, "ACCESS_TOKEN")
    ready.token = ready.runpod.gate = "the-secret-of-this-account"
    code, _, err = ready(*words(tmp_path / "out", "--keep", *option.split()))
    assert code == 0, err


def test_a_picture_that_the_proxy_does_not_take_is_made_smaller(
    operator: Operator, runpod: RunPod, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "workflows", operator.root / "workflows")
    large = picture(tmp_path)
    size = large.stat().st_size
    os.truncate(large, LARGEST_UPLOAD + 1)
    graph = json.loads((ROOT / "workflows/smoke-image.json").read_text())
    graph["3"] = {"class_type": "LoadImage", "inputs": {"image": "x.png"}}
    graph["4"] = {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}}
    (tmp_path / "mine.json").write_text(json.dumps(graph))
    order = ("run", str(tmp_path / "mine.json"), "--set", f"3.image={large}", "--out", str(tmp_path / "out"))
    code, _, err = operator(*order)
    assert code == 2 and "does not let through: make it smaller" in err and runpod.pods == {}
    os.truncate(large, size)
    with comfyui(tmp_path / "films", main=Path(film_comfyui.__file__)) as server:
        runpod.comfyui = server.url
        code, _, err = operator(*order)
        assert code == 0, err
        assert (server.base / "input" / large.name).read_bytes() == large.read_bytes()


def test_a_batch_runs_on_one_pod_and_goes_on_with_another(ready: Operator, runpod: RunPod, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("width,height\n64,64\n96,64\n")
    order = ("batch", "smoke-image", str(rows), "--out", str(tmp_path / "out"))
    code, _, err = ready(*order)
    assert code == 0, err
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2
    rows.write_text("width,height\n64,64\n96,64\n128,64\n")
    code, _, err = ready(*order, "--resume")
    assert code == 0, err
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3
    assert (runpod.live, len(runpod.pods)) == ([], 2)


def test_rows_are_checked_before_anything_is_paid_for(ready: Operator, runpod: RunPod, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("width\nbanana\n")
    code, _, err = ready("batch", "smoke-image", str(rows), "--out", str(tmp_path / "out"))
    assert code == 2 and "row 1" in err and runpod.pods == {}


def test_an_unknown_workflow_is_named_with_the_nearest(ready: Operator, runpod: RunPod, tmp_path: Path) -> None:
    code, _, err = ready("run", "smoke-imag", "--out", str(tmp_path / "out"))
    assert code == 2 and "smoke-image" in err and runpod.pods == {}


def fails_to_start(runpod: RunPod) -> None:
    runpod.ends_as = "ERROR"


def is_away(runpod: RunPod) -> None:
    runpod.comfyui = "http://127.0.0.1:9"


def has_a_stubborn_delete(runpod: RunPod) -> None:
    runpod.comfyui = "http://127.0.0.1:9"
    runpod.deletes.extend(["500-before", "drop-after"])


def answers_nothing_to_the_create(runpod: RunPod) -> None:
    runpod.creates.append("drop-after")
    runpod.ends_as = "ERROR"


@pytest.mark.parametrize("fault", [fails_to_start, is_away, has_a_stubborn_delete, answers_nothing_to_the_create])
def test_no_pod_is_left_after_a_failure(
    ready: Operator,
    runpod: RunPod,
    tmp_path: Path,
    fault: Callable[[RunPod], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from hearmeman.workflows import client
    from hearmeman_pod import create

    monkeypatch.setattr(client, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(create, "_TERMINATE_PAUSE", 0.01)
    fault(runpod)
    code, _, err = ready(*words(tmp_path / "out"))
    assert code == 1, err
    assert (runpod.live, len(runpod.pods)) == ([], 1)


def test_a_pod_that_cannot_be_ended_is_shouted_about(
    ready: Operator, runpod: RunPod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hearmeman_pod import create

    monkeypatch.setattr(create, "_TERMINATE_PAUSE", 0.01)
    runpod.deletes.extend(["500-before"] * 6)
    code, _, err = ready(*words(tmp_path / "out"))
    assert code == 1 and "POD0 MAY STILL RUN AND COST MONEY" in err and "STILL COSTS MONEY" in err


def test_ctrl_c_while_the_pod_is_ended_says_what_lives_and_how_to_end_it(
    ready: Operator, runpod: RunPod, tmp_path: Path
) -> None:
    runpod.ends_as = "ERROR"
    runpod.deletes.append("interrupted")
    code, _, err = ready(*words(tmp_path / "out"))
    assert code == 130 and "POD0 MAY STILL RUN AND COST MONEY" in err
    assert "hearmeman-pod terminate" in err and "MAX_MINUTES" in err


def test_a_run_ends_the_pod_that_shows_up_after_its_successor(ready: Operator, runpod: RunPod, tmp_path: Path) -> None:
    runpod.creates.append("overtaken")
    code, _, err = ready(*words(tmp_path / "out"))
    assert code == 0, err
    assert (runpod.live, len(runpod.pods)) == ([], 2), err


def test_a_kept_pod_goes_on(ready: Operator, runpod: RunPod, tmp_path: Path) -> None:
    ready.token = runpod.gate = "the-secret-of-this-account"
    code, _, err = ready(*words(tmp_path / "out", "--keep", "--secret", "ACCESS_TOKEN"))
    assert code == 0 and runpod.live == ["pod0"]
    assert "hearmeman-pod terminate pod0" in err and ready.token not in err
    env = runpod.pods["pod0"].body["env"]
    assert env["ACCESS_TOKEN"] == "{{ RUNPOD_SECRET_access_token }}" and "MAX_MINUTES" not in env


def provisioning(runpod: RunPod) -> bool:
    return bool(runpod.pods)


def running_the_workflow(runpod: RunPod) -> bool:
    return any(path.endswith("/8188/prompt") for _, path, _ in runpod.requests)


@pytest.mark.parametrize(
    ("stage", "number"),
    [(provisioning, signal.SIGINT), (running_the_workflow, signal.SIGTERM), (running_the_workflow, signal.SIGHUP)],
)
def test_a_signal_at_any_stage_ends_the_pod(
    ready: Operator, runpod: RunPod, tmp_path: Path, stage: Callable[[RunPod], bool], number: signal.Signals
) -> None:
    runpod.ready_after = 10**6 if stage is provisioning else 0
    with comfyui(tmp_path / "slow", write_seconds=600) as slow:
        runpod.comfyui = slow.url
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "python"),
            "HOME": str(tmp_path),
            "HEARMEMAN_ROOT": str(ready.root),
            "RUNPOD_API_URL": runpod.url,
            "HEARMEMAN_PROXY": runpod.proxy,
            "RUNPOD_API_KEY": KEY,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "hearmeman_pod", *words(tmp_path / "out")],
            env=environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: stage(runpod) or process.poll() is not None, "the stage")
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert (runpod.live, len(runpod.pods)) == ([], 1), err
