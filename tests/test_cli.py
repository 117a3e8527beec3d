"""The command: help, version, errors to exit codes, a closed pipe, and `hearmeman env`."""

import json
import os
import re
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import pytest

from hearmeman import __version__, cli, errors, overview
from hearmeman.errors import HearmemanError
from hearmeman_build import __main__ as build
from hearmeman_pod import command as pod
from support.repository import ROOT
from support.waiting import PATIENCE


def call(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(cli.__file__).parents[1]), **environ}
    command = [sys.executable, "-m", "hearmeman", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_help_names_every_command() -> None:
    done = call("--help")
    assert done.returncode == 0
    for name in set(cli.COMMANDS) - cli.HIDDEN:
        assert name in done.stdout


def test_version() -> None:
    assert call("--version").stdout == f"hearmeman {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said", "usage"),
    [
        (["bot"], "there is no command 'bot': did you mean boot?", "hearmeman "),
        (["xyzzy"], "there is no command 'xyzzy': choose from boot, status, logs, env", "hearmeman "),
        (["models", "fetsh"], "there is no command 'fetsh': did you mean fetch?", "hearmeman models "),
        (["status", "--jsn"], "unrecognized arguments: --jsn: did you mean --json?", "hearmeman status "),
        (
            ["models", "plan", "--jsno"],
            "unrecognized arguments: --jsno: did you mean --json?",
            "hearmeman models plan ",
        ),
        (["env", "more", "words"], "unrecognized arguments: more words", "hearmeman env "),
    ],
)
def test_a_slip_is_named_with_the_usage_of_the_command_that_was_meant(words: list[str], said: str, usage: str) -> None:
    done = call(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.startswith(f"usage: {usage}")


def test_env_as_json_says_what_is_wrong_in_the_document() -> None:
    done = call("env", "--json", COMFYUI_PORT="x", ENABLE_R2_SINC="true", ENABLE_R2_SYNC="true")
    assert (done.returncode, done.stderr) == (0, "")
    problems = {row["name"]: row["problem"] for row in json.loads(done.stdout) if row["problem"]}
    assert set(problems) == {
        *("COMFYUI_PORT", "ENABLE_R2_SINC", "R2_ENDPOINT", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")
    }
    assert problems["COMFYUI_PORT"] == "COMFYUI_PORT='x': must be a whole number from 1 to 65535"


def test_in_a_running_pod_env_misses_no_secret_that_boot_gave(tmp_path: Path) -> None:
    given = ["R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", "ACCESS_TOKEN"]
    (tmp_path / "boot.json").write_text(json.dumps({"given": given}))
    shell = {"ENABLE_R2_SYNC": "true", "R2_ENDPOINT": "http://127.0.0.1:9"}
    words = ("env", "--run-dir", str(tmp_path))
    assert call(*words, **shell).returncode == 0
    made = json.loads(call(*words, "--template", **shell).stdout)
    assert made["env"] == {
        "ACCESS_TOKEN": "{{ RUNPOD_SECRET_access_token }}",
        "R2_ACCESS_KEY_ID": "{{ RUNPOD_SECRET_r2_access_key }}",
        "R2_SECRET_ACCESS_KEY": "{{ RUNPOD_SECRET_r2_secret_key }}",
        **shell,
    }
    rows = {row["name"]: row for row in json.loads(call(*words, "--json", **shell).stdout)}
    assert (rows["ACCESS_TOKEN"]["value"], rows["HF_TOKEN"]["value"]) == ("***", "")
    assert call("env", "--run-dir", str(tmp_path / "none"), **shell).returncode == 2


def test_an_error_is_a_document_where_one_was_asked_for() -> None:
    done = call("tune", "--json", COMFYUI_PORT="x", HF_TOKEN="hf_a b")
    assert done.returncode == 2
    assert done.stderr.startswith("hearmeman: settings are wrong")
    document = json.loads(done.stdout)
    assert (document["error"], document["exit_code"]) == ("SettingsError", 2)
    port, token = sorted(document["problems"], key=lambda problem: str(problem["name"]))
    assert (port["name"], port["value"], port["takes"]) == ("COMFYUI_PORT", "x", "a whole number from 1 to 65535")
    assert (token["name"], token["value"]) == ("HF_TOKEN", "")
    assert call("tune", COMFYUI_PORT="x").stdout == ""


def test_every_error_is_drawn_where_the_root_is_declared() -> None:
    for module in sorted((ROOT / "python/hearmeman").rglob("*.py")):
        for base in re.findall(r"^class \w+Error\((\w+)", module.read_text(encoding="utf-8"), re.MULTILINE):
            assert base.endswith("Error") or base == "Exception", module
    drawn = (HearmemanError.__module__ and errors.__doc__) or ""
    for branch in HearmemanError.__subclasses__():
        if branch.__module__ == errors.__name__:
            assert re.search(rf"{branch.__name__} +{branch.exit_code} ", drawn)


def test_an_update_without_nodes_says_so(tmp_path: Path) -> None:
    done = call("nodes", "update", VOLUME_DIR=str(tmp_path))
    assert done.returncode == 0
    assert "nodes.not_found" in done.stderr


def test_an_error_is_one_message_and_its_code() -> None:
    done = call("env", COMFYUI_PORT="x")
    assert done.returncode == 2
    assert "COMFYUI_PORT='x'" in done.stderr
    assert "Traceback" not in done.stderr


def test_control_c_is_130_and_says_what_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "parser_for", interrupted)
    assert cli.main(["models", "fetch", "zimage-turbo"], {}) == 130
    assert "stopped: what has arrived is kept; run the same command again to continue" in capsys.readouterr().err
    assert cli.main(["env"], {}) == 130
    assert capsys.readouterr().err == "\nhearmeman: stopped\n"
    for command in overview.RESUMES:
        assert command in overview.EXAMPLES


def test_a_closed_pipe_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    env = {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    command = [sys.executable, "-m", "hearmeman", "env"]
    done = subprocess.run(
        command, env=env, stdout=write, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False
    )
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
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
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


@pytest.mark.parametrize(
    ("parser", "words", "said", "usage"),
    [
        (pod.parser, ["pln"], "there is no command 'pln': did you mean plan?", "hearmeman-pod "),
        (pod.parser, ["plan", "--gpo", "x"], "arguments: --gpo x: did you mean --gpu?", "hearmeman-pod plan "),
        (pod.parser, ["volume", "lst"], "there is no command 'lst': did you mean list?", "hearmeman-pod volume "),
        (build.parser, ["push", "--bad"], "unrecognized arguments: --bad", "hearmeman_build push "),
    ],
)
def test_a_slip_on_the_host_is_named_with_the_usage_of_the_command_that_was_meant(
    parser: Callable[[], ArgumentParser], words: list[str], said: str, usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parser().parse_args(words)
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.startswith(f"usage: {usage}")
