"""What a running pod advises, followed in a shell of that pod."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hearmeman.users import COMFYUI, wrapped
from hearmeman_build.build import Image
from support.pod import Pod
from support.ports import free_port
from support.waiting import PATIENCE, wait_for

HEARMEMAN = "/opt/env/runtime/bin/hearmeman"
HERE = {"COMFYUI_HOST": "127.0.0.1", "STATUS_HOST": "127.0.0.1", "HF_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture(scope="module")
def pod(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    running = Pod(image, tmp_path_factory.mktemp("volume"))
    try:
        running.start(HERE)
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
