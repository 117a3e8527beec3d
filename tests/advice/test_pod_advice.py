"""What a running pod advises, followed in a shell of that pod."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hearmeman.cli import main
from hearmeman.users import COMFYUI, wrapped
from hearmeman_build.build import Image
from support.planning import KEY
from support.pod import Pod
from support.ports import free_port
from support.repository import ROOT
from support.waiting import PATIENCE, wait_for

HEARMEMAN = "/opt/env/runtime/bin/hearmeman"
HERE = {"COMFYUI_HOST": "127.0.0.1", "STATUS_HOST": "127.0.0.1", "HF_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture(scope="module")
def pod(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    running = Pod(image, tmp_path_factory.mktemp("volume"))
    try:
        running.start({**HERE, "PUBLIC_KEY": KEY})
        running.wait_line("pod.ready")
        yield running
    finally:
        running.kill()


def inside(pod: Pod, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(pod.inside(*words), capture_output=True, text=True, timeout=PATIENCE, check=False)


def status(pod: Pod) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inside(pod, HEARMEMAN, "status", "--json").stdout)
    return found


def shown(pod: Pod) -> str:
    return " ".join(inside(pod, HEARMEMAN, "status").stdout.split())


def advised(text: str, pattern: str) -> list[str]:
    """Give the words of the command that the advice names."""
    found = re.search(pattern, text)
    assert found, text
    return [HEARMEMAN if word == "hearmeman" else word for word in found[1].split()]


def test_a_stopped_comfyui_is_started_as_status_says(pod: Pod) -> None:
    control = ("/opt/env/runtime/bin/python", "-m", "supervisor.supervisorctl", "-c", "/run/hearmeman/supervisord.conf")
    assert inside(pod, *control, "stop", "stop-1:comfyui").returncode == 0
    wait_for(lambda: "stopped by hand" in shown(pod), "the stop in status")
    done = inside(pod, *advised(shown(pod), r"start it with `(hearmeman restart comfyui)`"))
    assert done.returncode == 0, done.stderr
    wait_for(lambda: status(pod)["ready"], "ComfyUI")


def test_a_restart_is_run_as_root_as_it_says(pod: Pod) -> None:
    words = (HEARMEMAN, "restart", "comfyui")
    refused = inside(pod, *wrapped(words, COMFYUI))
    assert refused.returncode and "run this in the pod, as root" in refused.stderr, refused.stderr
    assert inside(pod, *words).returncode == 0
    wait_for(lambda: status(pod)["ready"], "ComfyUI")


def test_an_overlay_that_was_set_aside_is_replaced_by_the_restart_that_is_advised(pod: Pod) -> None:
    done = inside(pod, HEARMEMAN, "overlay", "reset")
    assert done.returncode == 0, done.stderr
    restarted = inside(pod, *advised(done.stdout, r"set aside as \S+; restart ComfyUI: (hearmeman restart comfyui)"))
    assert restarted.returncode == 0, restarted.stderr
    wait_for(lambda: status(pod)["ready"], "ComfyUI")
    assert json.loads(inside(pod, HEARMEMAN, "overlay", "list", "--json").stdout)["packages"] == {}


def test_logs_are_read_in_the_pod_as_it_says_elsewhere(
    pod: Pod, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", "--run-dir", str(tmp_path)], {}) == 1
    assert "run this in the pod" in capsys.readouterr().err
    read = inside(pod, HEARMEMAN, "logs")
    assert read.returncode == 0 and "comfyui" in read.stdout, read.stderr


def test_a_pod_without_sshd_needs_an_image_with_it(pod: Pod) -> None:
    words = ("sshd", "--run-dir", "/run/hearmeman", "--keys-dir", "/tmp/keys")
    here = [*["bwrap", "--dev-bind", "/", "/", "--tmpfs", "/usr/sbin", "--"], sys.executable, "-m", "hearmeman", *words]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python")}
    refused = subprocess.run(here, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert refused.returncode == 1 and "use an image with openssh-server" in refused.stderr, refused.stderr
    # This image has it.
    wait_for(lambda: "Server listening" in inside(pod, HEARMEMAN, "logs", "sshd").stdout, "sshd")


def _code(port: int, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/system_stats", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_a_token_is_set_as_the_warning_says(image: Image, tmp_path: Path) -> None:
    """`set ACCESS_TOKEN to ask for a token`: the warning goes, and the refusal says how the token is sent."""
    port, token = free_port(), "a-token-for-this-test"
    open_to_all = Pod(image, tmp_path / "a")
    gated = Pod(image, tmp_path / "b")
    for pod in (open_to_all, gated):
        pod.volume.mkdir()
    try:
        open_to_all.start({**HERE, "COMFYUI_HOST": "0.0.0.0"})
        open_to_all.wait_line("pod.ready")
        [name] = {*re.findall(r"set (\w+) to require a token", shown(open_to_all))}
        gated.start({**HERE, "COMFYUI_HOST": "0.0.0.0", "COMFYUI_PORT": str(port), name: token})
        gated.wait_line("pod.ready")
        assert "require a token" not in shown(gated)
        wait_for(lambda: _code(port)[0], "the gate")
        code, text = _code(port)
        [scheme] = re.findall(r"send the header 'Authorization: (\w+) ACCESS_TOKEN'", text)
        assert code == 401
        assert _code(port, Authorization=f"{scheme} {token}")[0] == 200
    finally:
        open_to_all.kill()
        gated.kill()
