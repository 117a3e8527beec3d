"""`hearmeman models fetch`: the real huggingface_hub against a Hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import PATH, REPO, Hub, Repo, Stored, tiny_safetensors

ROOT = Path(__file__).resolve().parent.parent
DEST = "ComfyUI/models/checkpoints/tiny.safetensors"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


def models(volume: Path, hub: Hub, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as boot does."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(volume),
        "PYTHONPATH": str(ROOT / "python"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "VOLUME_DIR": str(volume),
        "MODEL_CATALOGUE": str(ROOT / "tests/smoke/catalogue.toml"),
        "MODELS": "smoke",
        "HF_ENDPOINT": hub.url,
        "HF_HUB_ETAG_TIMEOUT": "3",
        **variables,
    }
    command = [sys.executable, "-m", "hearmeman", "models", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


def test_fetched_verified_and_never_asked_for_again(tmp_path: Path, hub: Hub) -> None:
    done = models(tmp_path, hub, "fetch")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / DEST).read_bytes() == tiny_safetensors()
    state = json.loads((tmp_path / ".hearmeman/local/models.json").read_text())
    assert (state["state"], state["files_present"]) == ("complete", 1)
    assert {request.host for request in hub.requests} == {"hub", "storage"}
    asked = len(hub.requests)
    again = models(tmp_path, hub, "fetch")
    assert again.returncode == 0, again.stderr
    assert len(hub.requests) == asked


def test_the_token_goes_to_the_hub_alone_and_into_no_line(tmp_path: Path, hub: Hub) -> None:
    hub.repos[REPO] = Repo(hub.repos[REPO].files, gated=True)
    hub.token = "hf_very_secret"
    done = models(tmp_path, hub, "fetch", HF_TOKEN="hf_very_secret")
    assert done.returncode == 0, done.stderr
    asked = [request for request in hub.requests if "/resolve/" in request.path]
    assert asked
    assert all(request.headers.get("authorization") == "Bearer hf_very_secret" for request in asked)
    assert all("authorization" not in r.headers for r in hub.requests if r.host == "storage")
    assert all("very_secret" not in r.path for r in hub.requests)
    assert "very_secret" not in done.stderr + done.stdout


def test_gated_without_a_token(tmp_path: Path, hub: Hub) -> None:
    hub.repos[REPO] = Repo(hub.repos[REPO].files, gated=True)
    done = models(tmp_path, hub, "fetch")
    assert done.returncode == 1
    assert "is gated: accept its licence" in done.stderr
    assert "HF_TOKEN" in done.stderr
    assert not (tmp_path / DEST).exists()


@pytest.mark.parametrize(
    ("repos", "words"),
    [
        ({}, "the repository does not exist"),
        ({REPO: Repo({})}, "does not exist in that repository"),
        ({REPO: Repo({PATH: Stored(tiny_safetensors())}, commit="0" * 40)}, "that revision does not exist"),
        ({REPO: Repo({PATH: Stored(bytes(4194384))})}, "sent something else"),
        ({REPO: Repo({PATH: Stored(b"short")})}, "sent something else"),
    ],
)
def test_each_failure_has_its_own_sentence(tmp_path: Path, hub: Hub, repos: dict[str, Repo], words: str) -> None:
    hub.repos = repos
    done = models(tmp_path, hub, "fetch")
    assert done.returncode == 1
    assert words in done.stderr
    assert not (tmp_path / DEST).exists()
    assert "Traceback" not in done.stderr


def test_no_hub_at_all(tmp_path: Path) -> None:
    with Hub() as hub:
        pass
    done = models(tmp_path, hub, "fetch")
    assert done.returncode == 1
    assert "HF_ENDPOINT" in done.stderr


def test_a_file_of_the_same_name_is_set_aside_and_not_lost(tmp_path: Path, hub: Hub) -> None:
    target = tmp_path / DEST
    target.parent.mkdir(parents=True)
    target.write_bytes(b"mine")
    assert models(tmp_path, hub, "fetch").returncode == 0
    assert target.read_bytes() == tiny_safetensors()
    aside = tmp_path / "ComfyUI/models/.hearmeman/replaced/checkpoints/tiny.safetensors"
    assert aside.read_bytes() == b"mine"


def test_a_right_file_that_was_there_before_is_taken(tmp_path: Path, hub: Hub) -> None:
    target = tmp_path / DEST
    target.parent.mkdir(parents=True)
    target.write_bytes(tiny_safetensors())
    done = models(tmp_path, hub, "fetch")
    assert done.returncode == 0
    assert hub.requests == []


def test_verify_names_what_is_corrupt(tmp_path: Path, hub: Hub) -> None:
    models(tmp_path, hub, "fetch")
    assert models(tmp_path, hub, "verify").returncode == 0
    with (tmp_path / DEST).open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"\0\1\2\3")
    done = models(tmp_path, hub, "verify", "--json")
    assert done.returncode == 3
    assert "sha256" in json.loads(done.stdout)["checkpoints/tiny.safetensors"]
    assert models(tmp_path, hub, "fetch").returncode == 0
    assert (tmp_path / DEST).read_bytes() == tiny_safetensors()


def test_dry_run_and_plan_fetch_nothing(tmp_path: Path, hub: Hub) -> None:
    for done in (models(tmp_path, hub, "fetch", DRY_RUN="true"), models(tmp_path, hub, "plan", "--json")):
        assert done.returncode == 0, done.stderr
        assert "checkpoints/tiny.safetensors" in done.stdout
    assert hub.requests == []
    assert not (tmp_path / "ComfyUI").exists()


def test_an_unknown_model_is_a_usage_error(tmp_path: Path, hub: Hub) -> None:
    done = models(tmp_path, hub, "fetch", MODELS="smole")
    assert done.returncode == 2
    assert "did you mean smoke?" in done.stderr
