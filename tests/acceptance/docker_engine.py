"""Debian's docker.io and docker-compose: the image is loaded, found under its own ID, run, and kept by compose.yaml."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from hearmeman_build.build import Image
from hearmeman_build.errors import BuildError
from hearmeman_build.gzip_layout import gzip_copy
from hearmeman_build.inspect_image import configuration
from hearmeman_build.push import load
from support.ports import free_port
from support.repository import ROOT


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """A docker daemon of our own: its DOCKER_HOST. Without bridge and rules, which a container may not make."""
    folder = Path("/var/tmp") / f"hearmeman-docker-{os.getpid()}"
    folder.mkdir()
    host = f"unix://{folder}/docker.sock"
    command = ["dockerd", "--iptables=false", "--bridge=none", "--host", host, "--data-root", f"{folder}/data"]
    command += ["--exec-root", f"{folder}/run", "--pidfile", f"{folder}/pid"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 120
        while subprocess.run(["docker", "--host", host, "version"], capture_output=True, check=False).returncode != 0:
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()[-3000:]
            time.sleep(0.5)
        yield host
    finally:
        process.terminate()
        process.wait(120)
        for left in (folder / "data", folder / "run/netns/default"):
            subprocess.run(["umount", "--recursive", "--quiet", str(left)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def loaded(image: Image, engine: str) -> str:
    """The image's name in the engine, loaded by the command that a person types."""
    command = [sys.executable, "-m", "hearmeman_build", "load", "--tier", "smoke"]
    environment = {**os.environ, "DOCKER_HOST": engine, "PYTHONPATH": str(ROOT / "python")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "docker-daemon:hearmeman:smoke"
    return "hearmeman:smoke"


def _docker(engine: str, *arguments: str) -> str:
    done = subprocess.run(["docker", "--host", engine, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_docker_holds_has_the_images_own_configuration(image: Image, engine: str, loaded: str) -> None:
    [found] = json.loads(_docker(engine, "image", "inspect", loaded))
    assert found["RootFS"]["Layers"] == configuration(image)["rootfs"]["diff_ids"]
    assert found["Config"]["Entrypoint"] == ["/usr/bin/tini", "--", "/opt/env/runtime/bin/hearmeman", "boot"]


def test_it_runs(engine: str, loaded: str) -> None:
    port, status = free_port(), free_port()
    variables = {"COMFYUI_PORT": port, "STATUS_PORT": status, "DRY_RUN": "true"}
    words = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    name = f"hearmeman-{port}"
    _docker(engine, "run", "--detach", "--network", "host", "--name", name, *words, loaded)
    try:
        _answers(f"http://127.0.0.1:{port}/system_stats", engine, name)
        assert "hearmeman" in _docker(engine, "exec", name, "hearmeman", "--help")
        begun = time.monotonic()
        _docker(engine, "stop", "--time", "60", name)
        assert time.monotonic() - begun < 60
        [state] = json.loads(_docker(engine, "inspect", name))
        assert state["State"]["ExitCode"] == 0
    finally:
        _docker(engine, "rm", "--force", name)


def test_compose_yaml_starts_it(engine: str, loaded: str, tmp_path: Path) -> None:
    """As its head says: .env.example is copied to .env. Without a GPU and a bridge here, those two parts are left out."""
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    service = compose["services"]["hearmeman"]
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"
    del service["deploy"], service["ports"]
    service["network_mode"] = "host"
    port, status = free_port(), free_port()
    service["environment"] |= {"COMFYUI_PORT": str(port), "STATUS_PORT": str(status), "DRY_RUN": "true"}
    service["healthcheck"]["test"][-1] = f"http://127.0.0.1:{status}/readyz"
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(compose))
    (tmp_path / "docker-compose.yml").symlink_to("compose.yaml")
    shutil.copy(ROOT / ".env.example", tmp_path / ".env")
    environment = {**os.environ, "DOCKER_HOST": engine, "HEARMEMAN_TAG": loaded.partition(":")[2]}
    run = ["docker-compose", "--project-name", f"hearmeman{port}"]
    up = subprocess.run([*run, "up", "--detach"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert up.returncode == 0, up.stderr
    try:
        name = subprocess.run([*run, "ps", "-q"], cwd=tmp_path, env=environment, capture_output=True, text=True).stdout
        _answers(f"http://127.0.0.1:{port}/system_stats", engine, name.strip())
        assert (tmp_path / "workspace/ComfyUI").is_dir()
    finally:
        down = subprocess.run([*run, "down", "--timeout", "60"], cwd=tmp_path, env=environment, capture_output=True)
    assert down.returncode == 0


def test_a_second_load_makes_no_layer_again(image: Image, engine: str, loaded: str) -> None:
    said: list[str] = []
    gzip_copy(image, said.append)
    assert said == []


def test_an_engine_that_is_not_there_is_said(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(
        BuildError,
        match="docker does not answer at unix:///nowhere/docker.sock .*: start it, or name its address in DOCKER_HOST",
    ):
        load("smoke", "docker", "hearmeman")


def _answers(url: str, engine: str, name: str) -> None:
    end = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                assert reply.status == 200
                return
        except OSError:
            assert time.monotonic() < end, _docker(engine, "logs", name)[-3000:]
            time.sleep(0.5)
