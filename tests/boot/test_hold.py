"""A pod that cannot boot stays open on RunPod: the reason on its ports and over SSH, and no loop of restarts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from fakes.runpod import RunPod
from hearmeman.boot import hold
from hearmeman.status import collect
from hearmeman_build.build import Image
from support.gated import GatedPod
from support.memory import children
from support.ports import free_port
from support.repository import ROOT
from support.waiting import PATIENCE, wait_for

IMAGE = {"tier": "smoke", "comfyui_rev": "a", "comfyui_python": "p", "comfyui_main": "m", "cuda_floor": "12.8"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGvMTvBrQcAwkNzBdSqrVfLoHsTBeSDvVDjLfmZQmrJK me"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"RUNPOD_POD_ID": "p1"}, True),
        ({"RUNPOD_POD_ID": "p1", "HOLD_ON_ERROR": "no"}, False),
        ({"HOLD_ON_ERROR": "Yes"}, True),
        ({"HOLD_ON_ERROR": "perhaps"}, False),
        ({"HOLD_ON_ERROR": "perhaps", "RUNPOD_POD_ID": "p1"}, True),
    ],
)
def test_it_is_held_on_runpod_or_as_asked(environ: dict[str, str], wanted: bool) -> None:
    assert hold.is_wanted(environ) is wanted


def test_what_is_wrong_does_not_keep_the_rest_closed() -> None:
    held = hold.plan({"STATUS_PORT": "x", "COMFYUI_PORT": "9000", "SSH_PORT": "80000", "PUBLIC_KEY": f"{KEY}\nno key"})
    assert held == hold.Held((("0.0.0.0", 9000), ("0.0.0.0", 19123)), 22, (KEY,))


def ask(port: int, path: str, **headers: str) -> tuple[int, str, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.getheader("X-Hearmeman-State") or ""
    finally:
        connection.close()


def start(folder: Path, port: int, **variables: str) -> subprocess.Popen[str]:
    (folder / "image.json").write_text(json.dumps(IMAGE))
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "python"),
        "STATUS_HOST": "127.0.0.1",
        "STATUS_PORT": str(port),
        "COMFYUI_HOST": "127.0.0.1",
        "COMFYUI_PORT": str(free_port()),
        **variables,
    }
    words = ["boot", "--run-dir", str(folder / "run"), "--image-file", str(folder / "image.json")]
    command = [sys.executable, "-m", "hearmeman", *words]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def said(child: subprocess.Popen[str]) -> str:
    return child.communicate()[0] if child.poll() is not None else ""


def wait_for_page(child: subprocess.Popen[str], port: int) -> None:
    def answers() -> bool:
        with contextlib.suppress(OSError, HTTPException):
            return ask(port, "/healthz")[0] == 200
        return False

    wait_for(answers, "the page", over=lambda: child.poll() is not None, said=lambda: said(child))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can read: the page is served by another."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_the_reason_is_shown_until_it_is_stopped(folder: Path) -> None:
    port = free_port()
    secrets = {"HF_TOKEN": "hf_pl4nted-secret", "MODELS_DIR": "models of hf_pl4nted-secret <b>"}
    child = start(folder, port, HOLD_ON_ERROR="true", GPU_TIER="huge", **secrets)
    try:
        wait_for_page(child, port)
        status, text, state = ask(port, "/", Accept="text/html")
        assert (status, state) == (503, "held")
        assert "GPU_TIER=&#x27;huge&#x27;: must be one of auto" in text
        assert "&lt;b&gt;" in text
        # RunPod's proxy would replace a 503's page by its own.
        assert ask(port, "/", Accept="text/html", Cf_Ray="1")[0] == 200
        status, text, _ = ask(port, "/readyz", Cf_Ray="1")
        assert status == 503
        assert "GPU_TIER='huge'" in json.loads(text)["error"]
        assert "GPU_TIER='huge'" in collect.status(folder / "run")["problem"], "what `hearmeman status` says"
        page = children(child.pid)[0]
        os.kill(page, signal.SIGKILL)
        wait_for(lambda: page not in children(child.pid), "its end")
        wait_for_page(child, port)
        child.send_signal(signal.SIGTERM)
        said = child.communicate(timeout=PATIENCE)[0]
    finally:
        child.kill()
    assert child.returncode == 2
    assert "boot.held" in said
    assert "hf_pl4nted" not in said + text
    for path in (folder / "run").rglob("*"):
        assert path.is_dir() or "hf_pl4nted" not in path.read_text()


def test_elsewhere_it_ends_at_once(tmp_path: Path) -> None:
    child = start(tmp_path, free_port(), GPU_TIER="huge")
    said = child.communicate(timeout=PATIENCE)[0]
    assert child.returncode == 2
    assert "GPU_TIER='huge'" in said
    assert "boot.held" not in said


def test_a_held_pod_ends_itself_as_any_other_would_whatever_else_is_wrong() -> None:
    able = {"RUNPOD_POD_ID": "p1", "RUNPOD_API_KEY": "rpa_key", "IDLE_ACTION": "explode"}
    assert hold.plan(able).ends == {}
    ends = hold.plan({**able, "IDLE_STOP_MINUTES": "20", "GPU_TIER": "huge"}).ends
    assert ends == {"RUNPOD_POD_ID": "p1", "RUNPOD_API_KEY": "rpa_key", "IDLE_STOP_MINUTES": "20"}
    assert "rpa_key" not in repr(hold.plan({**able, "IDLE_STOP_MINUTES": "20"}))
    # A limit that cannot be read was wanted all the same.
    assert hold.plan({**able, "MAX_MINUTES": "2h"}).ends["IDLE_STOP_MINUTES"] == "30"
    assert hold.plan({"IDLE_STOP_MINUTES": "20"}).ends == {}


def test_a_held_pod_says_why_to_who_logs_in_and_stops_when_nobody_does(image: Image, tmp_path: Path) -> None:
    pod = GatedPod(image, tmp_path)
    body = {"name": "p", "image": "r/i@sha256:" + "0" * 64, "gpu": {"id": "NVIDIA L40S", "count": 1}}
    with RunPod(key=pod.variables["RUNPOD_API_KEY"]) as runpod:
        _held(pod, runpod, runpod.made(body, "RUNNING"))


def _held(pod: GatedPod, runpod: RunPod, name: str) -> None:
    try:
        limits = {"IDLE_STOP_MINUTES": "0.05", "RUNPOD_API_URL": runpod.url}
        pod.start({**pod.variables, **limits, "RUNPOD_POD_ID": name, "GPU_TIER": "huge"})
        pod.wait_line("boot.held")
        pod.wait_for(lambda: runpod.pods[name].status == "EXITED", "the stop")
        pod.wait_line("idle.warning")
        assert "The pod stops in" in ask(pod.ports["STATUS"], "/", Accept="text/html")[1]
        assert json.loads(ask(pod.ports["STATUS"], "/status")[1])["idle"]["action"] == "stop"
        pod.wait_for(lambda: pod.ssh("true").returncode == 0, "SSH")
        shell = pod.ssh("bash", "-ic", "true")
        assert "This pod could not start." in shell.stderr
        assert "GPU_TIER='huge'" in shell.stderr
        assert pod.ssh("echo", "quiet").stderr == ""
        assert ask(pod.ports["STATUS"], "/readyz")[0] == 503
        assert pod.stop() == 2
        for secret in ("planted-secret", pod.variables["ACCESS_TOKEN"]):
            assert secret not in pod.log()
    finally:
        pod.kill()
