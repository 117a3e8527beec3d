"""Where images go: --to, then the variable, then .env, then the git remote; anything else is refused before a build."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT
from hearmeman_build.repository import find


def checkout(folder: Path, remote: str) -> Path:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "remote", "add", "origin", remote], check=True)
    return folder


@pytest.mark.parametrize(
    "remote",
    [
        "https://github.com/Some-One/Hearmeman",
        "https://github.com/Some-One/Hearmeman.git",
        "https://token@github.com/Some-One/Hearmeman.git",
        "git@github.com:Some-One/Hearmeman.git",
        "ssh://git@github.com/Some-One/Hearmeman.git",
    ],
)
def test_without_a_name_it_is_githubs_registry_of_the_remote(tmp_path: Path, remote: str) -> None:
    found = find("", {}, checkout(tmp_path, remote))
    assert (found.reference, found.source) == ("ghcr.io/some-one/hearmeman", "the git remote origin")


def test_the_nearest_name_wins(tmp_path: Path) -> None:
    root = checkout(tmp_path, "https://github.com/a/b")
    (root / ".env").write_text('X=1\nHEARMEMAN_REPOSITORY=\nHEARMEMAN_REPOSITORY="registry.example/from/file"\n')
    assert find("", {}, root).reference == "registry.example/from/file"
    variables = {"HEARMEMAN_REPOSITORY": "localhost:5000/from-variable"}
    assert find("", variables, root).source == "HEARMEMAN_REPOSITORY"
    assert find("registry.example/from-flag", variables, root).source == "--to"


@pytest.mark.parametrize(
    "remote", ["https://gitlab.com/a/b", "/srv/git/hearmeman.git", "https://evil.example/github.com/a/b"]
)
def test_another_remote_names_nothing(tmp_path: Path, remote: str) -> None:
    with pytest.raises(BuildError, match="set HEARMEMAN_REPOSITORY=REGISTRY/NAME"):
        find("", {}, checkout(tmp_path, remote))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ghcr.io/you/x:latest", "has a tag or digest"),
        ("ghcr.io/you/x@sha256:1", "has a tag or digest"),
        ("ghcr.io/You/x", "in lowercase"),
        ("https://ghcr.io/you/x", "is not REGISTRY/NAME"),
        ("hearmeman", "is not REGISTRY/NAME"),
    ],
)
def test_what_is_no_repository_is_refused(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(BuildError, match=f"HEARMEMAN_REPOSITORY .*{why}"):
        find("", {"HEARMEMAN_REPOSITORY": name}, tmp_path)


def test_push_says_image_and_place_before_it_builds(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "python")}
    environ |= {"HEARMEMAN_REPOSITORY": "127.0.0.1:9/a/b", "HEARMEMAN_SOURCES": str(tmp_path / "none")}
    done = subprocess.run(
        [sys.executable, "-m", "hearmeman_build", "push"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.stdout == "image-consumer to 127.0.0.1:9/a/b:latest, named by HEARMEMAN_REPOSITORY\n"
    assert done.returncode == 1
    assert "is not a folder" in done.stderr
