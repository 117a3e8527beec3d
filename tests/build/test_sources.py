"""Sources of ComfyUI and nodes: given by a folder, pinned to another commit, listed, and ComfyUI's own options."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hearmeman_build import lock_flake, pin, sources
from hearmeman_build.build import build_output
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT, nix
from hearmeman_build.plugins.comfyui_options import read

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_folder_replaces_inputs_by_name(tmp_path: Path) -> None:
    (tmp_path / "comfyui-gguf").mkdir()
    (tmp_path / "comfyui-gguf/x.py").write_text("")
    (tmp_path / "unrelated").mkdir()
    assert sources.overrides(tmp_path) == ("--override-input", "comfyui-gguf", f"path:{tmp_path}/comfyui-gguf")


def test_a_folder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARMEMAN_SOURCES", "/nowhere")
    with pytest.raises(BuildError, match="HEARMEMAN_SOURCES=/nowhere is not a folder: name one that holds ComfyUI"):
        sources.folder()
    monkeypatch.setenv("HEARMEMAN_SOURCES", str(ROOT / "tests/standin"))
    assert sources.folder() == ROOT / "tests/standin"


def test_without_sources_the_error_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEARMEMAN_SOURCES", raising=False)

    def unreachable(*words: str, **flags: object) -> str:
        lock = sources.locked()["comfyui"]
        raise BuildError(f"unable to download 'x/repos/{lock['owner']}/{lock['repo']}/tarball/{lock['rev']}'")

    monkeypatch.setattr("hearmeman_build.build.nix", unreachable)
    with pytest.raises(BuildError, match="comfyui cannot be fetched from GitHub: give SOURCES=FOLDER to make"):
        build_output("image-consumer")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """flake.nix and flake.lock where they may be changed."""
    for name in ("flake.nix", "flake.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_pin_moves_flake_and_lock_together(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = copy / "given"
    shutil.copytree(ROOT / "tests/standin", given / "comfyui")
    monkeypatch.setenv("HEARMEMAN_SOURCES", str(given))
    said: list[str] = []
    pin.pin(copy, "comfyui", COMMIT, said.append)

    node = json.loads((copy / "flake.lock").read_text())["nodes"]["comfyui"]
    assert f"github:Comfy-Org/ComfyUI/{COMMIT}" in (copy / "flake.nix").read_text()
    assert node["locked"]["rev"] == node["original"]["rev"] == COMMIT
    assert node["locked"]["narHash"] == nix("hash", "path", str(given / "comfyui"))
    assert "lastModified" not in node["locked"]
    assert COMMIT[:12] in said[0]


@pytest.mark.parametrize(
    ("name", "commit", "why"),
    [
        ("comfyui", "v0.33.1", "is not a commit"),
        ("nixpkgs", COMMIT, "no input nixpkgs that is part of an image: flake.nix has comfyui"),
    ],
)
def test_a_wrong_pin_changes_nothing(copy: Path, name: str, commit: str, why: str) -> None:
    before = (copy / "flake.nix").read_bytes(), (copy / "flake.lock").read_bytes()
    with pytest.raises(BuildError, match=why):
        pin.pin(copy, name, commit, print)
    assert ((copy / "flake.nix").read_bytes(), (copy / "flake.lock").read_bytes()) == before


def test_a_pin_writes_to_an_address_that_flake_nix_holds_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "given/comfyui").mkdir(parents=True)
    monkeypatch.setenv("HEARMEMAN_SOURCES", str(copy / "given"))
    flake = copy / "flake.nix"
    flake.write_text('let u = "UI"; in ' + flake.read_text().replace("/ComfyUI/", "/Comfy${u}/"))
    with pytest.raises(BuildError, match="write the address of comfyui out, once") as caught:
        pin.pin(copy, "comfyui", COMMIT, print)
    [named] = re.findall(r"does not hold (\S+) once", str(caught.value))
    flake.write_text(flake.read_text().replace(named.replace("/ComfyUI/", "/Comfy${u}/"), named))
    pin.pin(copy, "comfyui", COMMIT, print)
    assert COMMIT in flake.read_text()


def test_a_lock_with_the_marks_of_a_merge_is_restored_and_follows_the_flake(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a merge, where each side has moved a source and flake.nix has been merged by hand."""
    (copy / "given/comfyui").mkdir(parents=True)
    monkeypatch.setenv("HEARMEMAN_SOURCES", str(copy / "given"))

    def git(*words: str) -> int:
        command = ["git", "-C", str(copy), "-c", "user.name=x", "-c", "user.email=x@example.org", *words]
        return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode

    git("init", "-q", "-b", "main")
    git("add", "flake.nix", "flake.lock")
    git("commit", "-qm", "0")
    git("branch", "theirs")
    for branch, commit in (("main", "1" * 40), ("theirs", COMMIT)):
        git("checkout", "-q", branch)
        pin.pin(copy, "comfyui", commit, print)
        git("commit", "-qam", commit)
    merged = (copy / "flake.nix").read_text()
    git("checkout", "-q", "main")
    assert git("merge", "-q", "theirs") == 1
    (copy / "flake.nix").write_text(merged)
    with pytest.raises(BuildError, match="flake.lock holds the marks of a merge conflict") as caught:
        lock_flake.lock(copy, print)
    [command] = re.findall("`(git .*?)`, then `make lock`", str(caught.value))
    subprocess.run(command.split(), cwd=copy, check=True, capture_output=True)
    lock_flake.lock(copy, print)
    assert (lock_flake.stale(copy), sources.locked(copy)["comfyui"]["rev"]) == ([], COMMIT)


def test_the_lock_follows_the_flakes_inputs(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = copy / "given"
    shutil.copytree(ROOT / "tests/standin", given / "comfyui-new")
    monkeypatch.setenv("HEARMEMAN_SOURCES", str(given))
    flake, lock = copy / "flake.nix", copy / "flake.lock"
    before = flake.read_text(), lock.read_text()
    added = f'comfyui-new = {{ url = "github:them/ComfyUI-New/{COMMIT}"; flake = false; }};'
    flake.write_text(before[0].replace("    comfyui-kjnodes = {", f"    {added}\n    comfyui-kjnodes = {{"))
    assert lock_flake.stale(copy) == ["comfyui-new"]

    lock_flake.lock(copy, print)
    assert lock_flake.stale(copy) == []
    assert sources.locked(copy)["comfyui-new"] == {
        "narHash": nix("hash", "path", str(given / "comfyui-new")),
        "type": "github",
        "owner": "them",
        "repo": "ComfyUI-New",
        "rev": COMMIT,
    }

    flake.write_text(before[0])
    lock_flake.lock(copy, print)
    assert lock.read_text() == before[1]


def test_an_input_that_a_merge_lost_from_the_lock_is_named_and_locked_again(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = copy / "given"
    shutil.copytree(ROOT / "tests/standin", given / "comfyui-gguf")
    monkeypatch.setenv("HEARMEMAN_SOURCES", str(given))
    lock = json.loads((copy / "flake.lock").read_text())
    node = lock["nodes"]["root"]["inputs"]["comfyui-gguf"]
    del lock["nodes"][node]
    (copy / "flake.lock").write_text(json.dumps(lock))
    assert lock_flake.stale(copy) == ["comfyui-gguf"]
    lock_flake.lock(copy, print)
    assert lock_flake.stale(copy) == []


def test_an_input_without_a_commit_is_refused_and_nothing_is_written(copy: Path) -> None:
    before = (copy / "flake.lock").read_bytes()
    flake = copy / "flake.nix"
    flake.write_text(flake.read_text().replace(sources.locked()["comfyui-gguf"]["rev"], "main"))
    with pytest.raises(BuildError, match=r"comfyui-gguf the address '.*/main': write github:OWNER/REPOSITORY/COMMIT"):
        lock_flake.lock(copy, print)
    assert (copy / "flake.lock").read_bytes() == before


def test_comfyuis_options_are_read_from_its_own_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "comfyui_version.py").write_text('__version__ = "9.9"\n')
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy/cli_args.py").write_text(
        "import argparse, enum\n"
        "class Fast(enum.Enum):\n    A = 'a'\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--port', type=int, default=8188)\n"
        "group = parser.add_mutually_exclusive_group()\n"
        "group.add_argument('--cpu', action='store_true')\n"
        "group.add_argument('--gpu-only', action='store_true')\n"
        "parser.add_argument('--fast', nargs='*', type=Fast)\n"
    )
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    found = read(tmp_path)
    by_name = {option["flags"][-1]: option for option in found["options"]}
    assert found["comfyui_version"] == "9.9"
    assert (by_name["--port"]["type"], by_name["--port"]["default"]) == ("int", 8188)
    assert by_name["--cpu"]["mutually_exclusive"] == ["--cpu", "--gpu-only"]
    assert by_name["--fast"]["choices"] == ["a"]
    assert by_name["--cpu"]["takes_value"] is False
