"""The command: help, version, errors to exit codes, a closed pipe, and `hearmeman env`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hearmeman import __version__, cli


def call(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(cli.__file__).parents[1]), **environ}
    command = [sys.executable, "-m", "hearmeman", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)


def test_help_names_every_command() -> None:
    done = call("--help")
    assert done.returncode == 0
    for name in cli.COMMANDS:
        assert name in done.stdout


def test_version() -> None:
    assert call("--version").stdout == f"hearmeman {__version__}\n"


def test_an_unknown_command_is_a_usage_error() -> None:
    done = call("bot")
    assert done.returncode == 2
    assert "boot" in done.stderr


def test_an_error_is_one_message_and_its_code() -> None:
    done = call("env", COMFYUI_PORT="x")
    assert done.returncode == 2
    assert "COMFYUI_PORT='x'" in done.stderr
    assert "Traceback" not in done.stderr


def test_control_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "parser_for", interrupted)
    assert cli.main(["env"], {}) == 130


def test_a_closed_pipe_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    env = {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    command = [sys.executable, "-m", "hearmeman", "env"]
    done = subprocess.run(command, env=env, stdout=write, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_env_tells_value_and_source_and_masks_secrets(tmp_path: Path) -> None:
    image = {"tier": "smoke", "comfyui_rev": "a", "comfyui_python": "p", "comfyui_main": "m", "cuda_floor": "12.8"}
    (tmp_path / "image.json").write_text(json.dumps({**image, "env": {"MODELS": "smoke"}}))
    words = ("env", "--json", "--image-file", str(tmp_path / "image.json"))
    done = call(*words, HF_TOKEN="hunter2", COMFYUI_PORT="9000")
    assert "hunter2" not in done.stdout + done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert (rows["HF_TOKEN"]["value"], rows["HF_TOKEN"]["from"]) == ("***", "environment")
    assert (rows["COMFYUI_PORT"]["value"], rows["COMFYUI_PORT"]["default"]) == ("9000", "8188")
    assert (rows["MODELS"]["value"], rows["MODELS"]["from"]) == ("smoke", "image")
    assert rows["VOLUME_DIR"]["from"] == "default"


def test_heavy_modules_are_loaded_late() -> None:
    code = (
        "import sys; from hearmeman import cli; cli.parser_for(['boot']); cli.parser_for(['keep'])\n"
        "print([m for m in ('pydantic','boto3','huggingface_hub','aiohttp','supervisor','rich') if m in sys.modules])"
    )
    env = {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"


def test_status_without_a_pod_says_so(tmp_path: Path) -> None:
    done = call("status", "--run-dir", str(tmp_path), VOLUME_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "no pod was booted here" in done.stdout


def test_a_processs_commands_have_its_whole_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env").mkdir()
    booted = {"R2_ENDPOINT": "http://pod", "R2_ACCESS_KEY_ID": "a", "R2_SECRET_ACCESS_KEY": "s", "R2_BUCKET": "pods"}
    (tmp_path / "env/sync.json").write_text(json.dumps(booted))
    monkeypatch.setattr("hearmeman.image.RUN_DIR", tmp_path)
    for command in ("sync", "upload", "workspace"):
        assert cli._environ(command, {"R2_BUCKET": "mine"}) == {**booted, "R2_BUCKET": "mine"}
    assert cli._environ("models", {}) == cli._environ("env", {}) == {}
    (tmp_path / "env/sync.json").write_text("half a fi")
    assert cli._environ("upload", {"R2_BUCKET": "mine"}) == {"R2_BUCKET": "mine"}
