"""Faults in the booted pod: what dies comes back, what hangs is ended, a bad disk is told, a stop always stops."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from fakes.hub import Hub
from hearmeman_build.build import Image
from support.gated import TOKEN, GatedPod
from support.inside import here, members, namespace, parent, report
from support.pod import Pod
from support.ports import free_port
from support.waiting import PATIENCE

CRASHING = "import sys\nprint('no good', flush=True)\nsys.exit(1)\n"
STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(600)\n"
)


def plain(image: Image, folder: Path) -> Pod:
    """A pod without a gate; its ports are in `variables`."""
    folder.mkdir(exist_ok=True)
    return Pod(image, folder)


def variables(**more: str) -> dict[str, str]:
    return {
        "COMFYUI_HOST": "127.0.0.1",
        "COMFYUI_PORT": str(free_port()),
        "STATUS_HOST": "127.0.0.1",
        "STATUS_PORT": str(free_port()),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "STOP_SECONDS": "8",
        **more,
    }


def instead_of_comfyui(pod: Pod, script: str) -> None:
    """Run `script` where ComfyUI is run."""
    (pod.volume / "main.py").write_text(script)
    own = json.loads((pod.root / "opt/hearmeman/image.json").read_text()) | {"comfyui_main": "/workspace/main.py"}
    (pod.volume / "image.json").write_text(json.dumps(own))
    pod.entrypoint = [*pod.entrypoint, "--image-file", "/workspace/image.json"]


def status(port: str, path: str = "/status") -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, {}


def zombies(pod: Pod) -> list[int]:
    found = []
    for pid, _ in members(pod):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                found.append(pid)
    return found


def test_every_process_killed_in_turn_comes_back(jupyter_image: Image, tmp_path: Path) -> None:
    pod = GatedPod(jupyter_image, tmp_path)
    try:
        pod.start(pod.variables)
        pod.wait_line("pod.ready")
        names = ["comfyui", "door", "gate", "sshd", "jupyter", "xtts"]
        pod.wait_for(lambda: all(report(pod, name).get("pid") for name in names), "all processes")
        for name in names:
            for wrapper_too in (False, True) if name in ("comfyui", "door", "gate") else (False,):
                before = {other: report(pod, other)["pid"] for other in names}
                child = here(pod, before[name])
                os.kill(parent(child) if wrapper_too else child, signal.SIGKILL)

                def back(name: str = name, before: dict[str, int] = before) -> bool:
                    pid = report(pod, name).get("pid")
                    return pid is not None and pid != before[name]

                pod.wait_for(back, f"{name} again")
                assert {o: report(pod, o)["pid"] for o in names if o != name} == {
                    o: pid for o, pid in before.items() if o != name
                }, f"the others must not notice that {name} died"
        pod.wait_for(lambda: not zombies(pod), "zombies to be reaped")
        pod.wait_for(lambda: pod.ssh("hearmeman status --ready").returncode == 0, "the pod to be whole again")
        assert pod.stop() == 0
    finally:
        pod.kill()


def test_with_the_doorman_frozen_nobody_gets_in(jupyter_image: Image, tmp_path: Path) -> None:
    pod = GatedPod(jupyter_image, tmp_path)
    address = f"http://127.0.0.1:{pod.ports['COMFYUI']}/system_stats"
    try:
        pod.start(pod.variables)
        pod.wait_line("pod.ready")
        pod.wait_for(lambda: bool(report(pod, "gate").get("pid")), "the gate")
        os.kill(here(pod, report(pod, "door")["pid"]), signal.SIGSTOP)
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}):
            request = urllib.request.Request(address, headers=headers)
            with pytest.raises(OSError):  # A time-out or a refusal, and never an answer.
                urllib.request.urlopen(request, timeout=2)
        pod.stop()
    finally:
        pod.kill()


def test_a_comfyui_that_crashes_at_once_leaves_the_pod_reachable(jupyter_image: Image, tmp_path: Path) -> None:
    pod, given = plain(jupyter_image, tmp_path / "v"), variables()
    instead_of_comfyui(pod, CRASHING)
    try:
        pod.start(given)
        pod.wait_line("again_in=4")
        pod.wait_for(lambda: status(given["STATUS_PORT"], "/healthz")[0] == 200, "the door")
        code, found = status(given["STATUS_PORT"], "/readyz")
        assert (code, found["ready"]) == (503, False)
        assert "does not answer" in found["why"]
        assert status(given["STATUS_PORT"], "/healthz") == (200, {"alive": True})
        _, found = status(given["STATUS_PORT"])
        said = {process["name"]: process["what"] for process in found["processes"]}
        assert "last exit 1" in said["comfyui"]
        pauses = [line.rpartition("again_in=")[2] for line in pod.lines if "[comfyui]" in line and "again_in" in line]
        assert pauses[:3] == ["1", "2", "4"]
        assert "no good" in (pod.volume / ".hearmeman/local/logs/comfyui.log").read_text()
        assert pod.stop() == 0
    finally:
        pod.kill()


@pytest.mark.alone
def test_a_process_that_hangs_is_ended_within_the_budget(jupyter_image: Image, tmp_path: Path) -> None:
    pod, given = plain(jupyter_image, tmp_path / "v"), variables()
    instead_of_comfyui(pod, STUBBORN)
    try:
        pod.start(given)
        pod.wait_line("deaf")
        began = time.monotonic()
        assert pod.stop() == 0, "nothing is uploaded here, so no output can be left"
        assert time.monotonic() - began < 8
        assert "comfyui did not stop in time and was killed" in pod.log()
    finally:
        pod.kill()


def test_a_comfyui_that_is_frozen_is_not_ready(jupyter_image: Image, tmp_path: Path) -> None:
    pod, given = plain(jupyter_image, tmp_path / "v"), variables()
    try:
        pod.start(given)
        pod.wait_line("pod.ready")
        frozen = here(pod, report(pod, "comfyui")["pid"])
        os.kill(frozen, signal.SIGSTOP)
        pod.wait_for(lambda: status(given["STATUS_PORT"], "/readyz")[0] == 503, "the pod to notice")
        assert status(given["STATUS_PORT"], "/healthz")[0] == 200
        os.kill(frozen, signal.SIGCONT)
        pod.wait_for(lambda: status(given["STATUS_PORT"], "/readyz")[0] == 200, "the pod to notice again")
        assert pod.stop() == 0
    finally:
        pod.kill()


def test_a_disk_that_fills_up_stops_nothing(jupyter_image: Image, tmp_path: Path) -> None:
    pod, given = plain(jupyter_image, tmp_path / "v"), variables()
    pod.mount = ["--size", str(96 << 20), "--tmpfs"]
    try:
        pod.start(given)
        pod.wait_line("pod.ready")
        volume = Path(f"/proc/{pod.init}/root/workspace")
        with contextlib.suppress(OSError), (volume / "filler").open("wb") as filler:
            while True:
                filler.write(bytes(1 << 16))
                filler.flush()
        os.kill(here(pod, report(pod, "comfyui")["pid"]), signal.SIGKILL)
        pod.wait_for(lambda: report(pod, "comfyui").get("starts") == 2, "ComfyUI to be started again")
        pod.wait_for(lambda: status(given["STATUS_PORT"], "/readyz")[0] == 200, "the pod to be ready")
        (volume / "filler").unlink()
        assert pod.stop() == 0
    finally:
        pod.kill()


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        (["--ro-bind", "{}"], "/workspace is not writable: mount a writable volume or set VOLUME_DIR"),
        (["--size", str(32 << 20), "--tmpfs"], "/workspace has 32 MiB free, 64 MiB are needed"),
    ],
)
def test_a_volume_that_cannot_be_used_is_told_at_once(
    jupyter_image: Image, tmp_path: Path, mount: list[str], said: str
) -> None:
    pod = plain(jupyter_image, tmp_path / "v")
    pod.mount = [word.format(tmp_path / "v") for word in mount]
    try:
        pod.start(variables())
        assert pod.ended() == 1
    finally:
        pod.kill()
    assert said in pod.log()
    assert list((tmp_path / "v").iterdir()) == []


def test_a_volume_of_another_user_can_be_worked_with(jupyter_image: Image, tmp_path: Path) -> None:
    pod, given = plain(jupyter_image, tmp_path / "v"), variables()
    for name in ("", "ComfyUI", "ComfyUI/output", "ComfyUI/models", "ComfyUI/models/loras"):
        (pod.volume / name).mkdir(exist_ok=True)
        if os.geteuid() == 0:
            os.chown(pod.volume / name, 1000, 1000)
    writer = (
        "import pathlib\n"
        "for name in ('output', 'models/loras', 'custom_nodes', 'user', 'input'):\n"
        "    pathlib.Path('/workspace/ComfyUI', name, 'mine').write_text('x')\n"
        "print('wrote all', flush=True)\n"
    )
    instead_of_comfyui(pod, writer)
    try:
        pod.start(given)
        pod.wait_line("wrote all")
        pod.stop()
    finally:
        pod.kill()


def test_comfyui_can_read_and_replace_what_the_fetch_brought(jupyter_image: Image, tmp_path: Path) -> None:
    pod = plain(jupyter_image, tmp_path / "v")
    user = (
        "import pathlib, time\n"
        "model = pathlib.Path('/workspace/ComfyUI/models/checkpoints/tiny.safetensors')\n"
        "while not model.exists(): time.sleep(0.1)\n"
        "print('read', len(model.read_bytes()) > 1000, flush=True)\n"
        "(model.parent / 'beside').write_text('x')\n"
        "model.unlink()\n"
        "print('replaced', flush=True)\n"
    )
    instead_of_comfyui(pod, user)
    with Hub(token="hf_secret-of-the-hub") as hub:
        try:
            pod.start(variables(HF_ENDPOINT=hub.url, HF_TOKEN=hub.token))
            pod.wait_line("read True")
            pod.wait_line("replaced")
            pod.stop()
        finally:
            pod.kill()


@pytest.mark.alone
def test_sigterm_at_any_moment_ends_the_pod(jupyter_image: Image, tmp_path: Path) -> None:
    rng = random.Random(6)
    print(f"seed {6}")
    for attempt in range(8):
        pod, given = plain(jupyter_image, tmp_path / f"v{attempt}"), variables(STOP_SECONDS="6")
        try:
            pod.start(given)
            # Until tini is there, the kernel drops the signal: a container runtime's own gap.
            pod.wait_for(lambda pod=pod: b"tini" in Path(f"/proc/{pod.init}/cmdline").read_bytes(), "tini")  # type: ignore[misc]
            time.sleep(0.05 + rng.random() * 1.5)
            inside = str(Path(f"/proc/{pod.init}/ns/pid").readlink())
            began = time.monotonic()
            code = pod.stop()
            assert time.monotonic() - began < 7
            assert code in (0, 143), pod.log()
            left = [
                folder.name
                for folder in Path("/proc").glob("[0-9]*")
                if (folder / "ns/pid").is_symlink() and namespace(folder) == inside
            ]
            assert left == []
        finally:
            pod.kill()
        for path in pod.volume.rglob("*.json"):
            json.loads(path.read_text())
