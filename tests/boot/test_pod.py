"""The pod end to end: settings to a running ComfyUI, a model from the Hub, an output in the bucket, a clean stop."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from fakes.hub import Hub
from fakes.s3 import S3
from hearmeman.settings.settings import Settings
from hearmeman.users import FETCH
from hearmeman_build.build import Image
from support.pod import PORTS, Pod
from support.ports import free_port
from support.waiting import PATIENCE

HEARMEMAN = "/opt/env/runtime/bin/hearmeman"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _bucket(s3: S3) -> dict[str, str]:
    """sha256 -> key of every object of the bucket."""
    return {hashlib.sha256(content).hexdigest(): key for key, content in s3.objects().items()}


def _variables(hub: Hub, s3: S3, port: int) -> dict[str, str]:
    return {
        "COMFYUI_HOST": "127.0.0.1",
        "STATUS_HOST": "127.0.0.1",
        "COMFYUI_PORT": str(port),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "ENABLE_R2_SYNC": "true",
        "R2_ENDPOINT": s3.url,
        "R2_ACCESS_KEY_ID": s3.access_key,
        "R2_SECRET_ACCESS_KEY": s3.secret_key,
        "RUNPOD_API_KEY": "rpa_secret-of-runpod",
    }


def _up(pod: Pod, port: int) -> None:
    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/system_stats", timeout=10):
                return True
        except OSError:
            return False

    pod.wait_for(answers, "ComfyUI")


def test_a_pod_of_the_tests_has_every_port_for_itself() -> None:
    assert {name.upper() for name in Settings.model_fields if name.endswith("_port")} == set(PORTS)


def test_the_main_job(image: Image, tmp_path: Path) -> None:
    volume, port = tmp_path / "volume", free_port()
    volume.mkdir()
    with Hub(token="hf_secret-of-the-hub") as hub, S3() as s3:
        pod = Pod(image, volume)
        try:
            pod.start(_variables(hub, s3, port))
            _up(pod, port)
            model = volume / "ComfyUI/models/checkpoints/tiny.safetensors"
            pod.wait_for(model.is_file, "the model")
            pod.wait_line("models.complete")

            # A model by address, added in a shell of the pod, is the fetch's own and ComfyUI's to read.
            address = "hf:hearmeman/smoke/tiny.safetensors@loras"
            done = subprocess.run(pod.inside(HEARMEMAN, "models", "add", address), capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert _sha256(volume / "ComfyUI/models/loras/tiny.safetensors") == _sha256(model)
            if os.geteuid() == 0:
                # ComfyUI's code must not say what is fetched with the user's tokens.
                kept = volume / ".hearmeman/models"
                assert (kept.stat().st_uid, kept.stat().st_mode & 0o777) == (FETCH.uid, 0o755)

            assert "no GPU" in pod.log()
            comfyui = [p for p in Path("/proc").glob("[0-9]*") if _is_comfyui(p, port)]
            assert comfyui
            for process in comfyui:
                environment = (process / "environ").read_bytes().decode()
                for secret in ("hf_secret", "rpa_secret", s3.secret_key, s3.access_key):
                    assert secret not in environment

            for workflow, pattern in (("smoke-image", "*.png"), ("smoke-audio", "*.flac")):
                command = pod.command(
                    HEARMEMAN, "workflows", "run", workflow, "--url", f"http://127.0.0.1:{port}", "--json"
                )
                done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
                assert done.returncode == 0, done.stderr
                output = next((volume / "ComfyUI/output").rglob(pattern))
                pod.wait_for(lambda output=output: _sha256(output) in _bucket(s3), f"{output.name} in the bucket")  # type: ignore[misc]
            # Each with the record of how it was made.
            pod.wait_for(lambda: len(_bucket(s3)) == 4, "the records")
            keys = sorted(_bucket(s3).values())
            assert ["/provenance/" in key for key in keys].count(True) == 2 and len(keys) == 4
            assert {key.partition("/")[0] for key in keys} == {"outputs"}

            # A file finished just before the stop is not lost: the drain sends it.
            last = volume / "ComfyUI/output/last.png"
            last.write_bytes(b"\x89PNG last")
            assert pod.stop() == 0
            assert _sha256(last) in _bucket(s3)
        finally:
            pod.kill()
        log = pod.log()
        for secret in ("hf_secret", "rpa_secret", s3.secret_key, s3.access_key):
            assert secret not in log

        # The second start fetches nothing again, and knows what was added.
        asked = len(hub.requests)
        again = Pod(image, volume)
        try:
            again.start(_variables(hub, s3, port))
            _up(again, port)
            assert "files=2" in again.wait_line("models.complete")
            assert again.stop() == 0
        finally:
            again.kill()
        assert len(hub.requests) == asked


def _is_comfyui(process: Path, port: int) -> bool:
    try:
        command = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"/opt/comfyui/main.py" in command and str(port).encode() in command and b"keep" not in command


def _refused(image: Image, volume: Path, variables: dict[str, str]) -> tuple[int, str]:
    volume.mkdir(exist_ok=True)
    pod = Pod(image, volume)
    try:
        pod.start(variables)
        code = pod.ended()
    finally:
        pod.kill()
    assert list(volume.iterdir()) == [], "nothing may be half done"
    return code, pod.log()


def test_all_settings_errors_at_once(image: Image, tmp_path: Path) -> None:
    code, log = _refused(
        image,
        tmp_path / "v",
        {"COMFYUI_PORT": "eighty", "GPU_TIER": "huge", "ENABLE_R2_SNYC": "true", "STOP_SECONDS": "-1"},
    )
    assert code == 2
    for part in ("COMFYUI_PORT='eighty'", "GPU_TIER='huge'", "did you mean ENABLE_R2_SYNC", "STOP_SECONDS"):
        assert part in log


def test_a_taken_port_is_named(image: Image, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, log = _refused(image, tmp_path / "v", {"COMFYUI_HOST": "127.0.0.1", "COMFYUI_PORT": str(port)})
    assert code == 1
    assert str(port) in log
    assert "COMFYUI_PORT" in log


@pytest.mark.parametrize(
    "arguments", [["--help"], ["env", "--json"], ["tune", "--json"], ["boot", "--plan"], ["models", "list"]]
)
def test_commands_inside_the_image(image: Image, tmp_path: Path, arguments: list[str]) -> None:
    pod = Pod(image, tmp_path)
    done = subprocess.run(pod.command(HEARMEMAN, *arguments), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    if "--json" in arguments:
        json.loads(done.stdout)
