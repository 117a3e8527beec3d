"""Owners of the volume's folders: whose what becomes, and that no link, hard link or other owner leads root astray."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hearmeman.boot import owners
from hearmeman.users import COMFYUI, FETCH, STATE_GID, SYNC
from support.waiting import PATIENCE

IS_ROOT = os.geteuid() == 0


def owned(path: Path) -> tuple[int, int, int]:
    """Owner, group and mode."""
    seen = path.lstat()
    return seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume that ComfyUI's user can reach."""
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    made = tmp_path / "volume"
    made.mkdir()
    return made


def as_root(check: Callable[[Path], None], volume: Path) -> None:
    """Root gives folders away; for anybody else it is refused, and said."""
    if IS_ROOT:
        check(volume)
    else:
        assert owners.settle(owners.of_comfyui(str(volume / "x"))) != ""
        assert (volume / "x").is_dir()


def test_each_folder_gets_its_owner(volume: Path) -> None:
    def check(volume: Path) -> None:
        for folder in (owners.top(str(volume)), owners.of_root(f"{volume}/.hearmeman")):
            assert owners.settle(folder) == ""
        assert owners.settle(owners.of_state(f"{volume}/.hearmeman/pod")) == ""
        assert owners.settle(owners.of_comfyui(f"{volume}/ComfyUI/a/b")) == ""
        assert owned(volume) == (0, COMFYUI.gid, 0o1775)
        assert owned(volume / ".hearmeman") == (0, 0, 0o755)
        assert owned(volume / ".hearmeman/pod") == (0, STATE_GID, 0o1775)
        for name in ("ComfyUI", "ComfyUI/a", "ComfyUI/a/b"):
            assert owned(volume / name) == (COMFYUI.uid, COMFYUI.gid, 0o2775)

    as_root(check, volume)


def test_a_person_s_volume_stays_that_person_s(volume: Path) -> None:
    def check(volume: Path) -> None:
        os.chown(volume, 1000, 1000)
        (volume / "ComfyUI").mkdir()
        os.chown(volume / "ComfyUI", 1000, 1000)
        owners.settle(owners.top(str(volume)))
        owners.settle(owners.of_comfyui(f"{volume}/ComfyUI"))
        assert owned(volume) == (1000, COMFYUI.gid, 0o1775)
        assert owned(volume / "ComfyUI") == (1000, COMFYUI.gid, 0o2775)

    as_root(check, volume)


def test_what_an_older_pod_left_becomes_comfyui_s(volume: Path) -> None:
    def check(volume: Path) -> None:
        base = volume / "ComfyUI"
        (base / "custom_nodes/Node/deep").mkdir(parents=True)
        (base / "models/loras").mkdir(parents=True)
        (base / "custom_nodes/Node/run.sh").write_text("x")
        (base / "custom_nodes/Node/run.sh").chmod(0o700)
        (base / "models/loras/fetched").write_text("x")
        os.chown(base / "models/loras/fetched", FETCH.uid, 0)
        (base / "person").write_text("x")
        os.chown(base / "person", 1000, 1000)
        (base / "setuid").write_text("x")
        (base / "setuid").chmod(0o4755)
        changed, failed = owners.repair(str(base))
        assert (changed > 5, failed) == (True, 0)
        assert owned(base / "custom_nodes/Node/deep") == (COMFYUI.uid, COMFYUI.gid, 0o2775)
        assert owned(base / "custom_nodes/Node/run.sh") == (COMFYUI.uid, COMFYUI.gid, 0o770)
        assert owned(base / "models/loras/fetched") == (FETCH.uid, COMFYUI.gid, 0o664)
        assert owned(base / "person") == (1000, COMFYUI.gid, 0o664)
        assert owned(base / "setuid") == (COMFYUI.uid, COMFYUI.gid, 0o775)
        assert owners.repair(str(base)) == (0, 0), "the second time there is nothing to do"

    as_root(check, volume)


def test_repair_touches_nothing_that_links_lead_to(volume: Path) -> None:
    def check(volume: Path) -> None:
        outside = volume.parent / "outside"
        outside.mkdir()
        (outside / "file").write_text("x")
        base = volume / "ComfyUI"
        base.mkdir()
        (base / "folder").symlink_to(outside)
        (base / "file").symlink_to(outside / "file")
        os.link(outside / "file", base / "hard")
        os.mkfifo(base / "fifo")
        before = owned(outside), owned(outside / "file")
        owners.repair(str(base))
        assert (owned(outside), owned(outside / "file")) == before
        assert owned(base / "hard") == before[1]

    as_root(check, volume)


def test_repair_of_a_very_deep_folder_ends(volume: Path) -> None:
    def check(volume: Path) -> None:
        here = volume / "deep"
        for _ in range(150):
            here = here / "d"
        here.mkdir(parents=True)
        assert owners.repair(str(volume / "deep"))[1] == 0

    as_root(check, volume)


@pytest.mark.parametrize("name", ["temp", "user/deep", "custom_nodes"])
def test_a_link_of_comfyui_s_own_is_used_with_its_rights_alone(volume: Path, name: str) -> None:
    def check(volume: Path) -> None:
        outside = volume.parent / "outside"
        outside.mkdir(mode=0o700)
        base = volume / "ComfyUI"
        base.mkdir()
        link = base / name.split("/")[0]
        link.symlink_to(outside)
        os.chown(link, COMFYUI.uid, COMFYUI.gid, follow_symlinks=False)
        before = owned(outside)
        assert "is a link to" in owners.settle(owners.of_comfyui(str(base / name)))
        assert owned(outside) == before
        assert list(outside.iterdir()) == []

    as_root(check, volume)


def test_a_link_that_a_person_made_is_followed(volume: Path) -> None:
    def check(volume: Path) -> None:
        disk = volume.parent / "disk"
        (disk / "models").mkdir(parents=True)
        (volume / "ComfyUI").mkdir()
        (volume / "ComfyUI/models").symlink_to("../../disk/models")
        assert owners.settle(owners.of_comfyui(f"{volume}/ComfyUI/models/loras")) == ""
        assert owned(disk / "models/loras") == (COMFYUI.uid, COMFYUI.gid, 0o2775)

    as_root(check, volume)


def test_a_link_planted_where_root_writes_is_set_aside(volume: Path) -> None:
    def check(volume: Path) -> None:
        outside = volume.parent / "outside"
        outside.mkdir()
        hidden = volume / ".hearmeman"
        hidden.symlink_to(outside)
        os.chown(hidden, COMFYUI.uid, COMFYUI.gid, follow_symlinks=False)
        assert owners.settle(owners.of_root(f"{hidden}/pod")) == ""
        assert hidden.is_dir() and not hidden.is_symlink()
        assert list(outside.iterdir()) == []
        assert [path.name.startswith(".hearmeman.set-aside-") for path in volume.iterdir() if path.is_symlink()] == [
            True
        ]

    as_root(check, volume)


def test_state_files_go_to_those_who_write_them(volume: Path) -> None:
    def check(volume: Path) -> None:
        for name in ("models.json", "sync.json", "sync-1.db", "boot.json"):
            (volume / name).write_text("{}")
        elsewhere = volume.with_name("elsewhere")
        elsewhere.touch()
        (volume / "sync.lock").symlink_to(elsewhere)
        owners.settle_state(str(volume))
        found = {path.name: path.lstat().st_uid for path in volume.iterdir()}
        assert found == {
            "models.json": FETCH.uid,
            "sync.json": SYNC.uid,
            "sync-1.db": SYNC.uid,
            "boot.json": 0,
            "sync.lock": 0,
        }
        assert elsewhere.stat().st_uid == 0

    as_root(check, volume)


def test_a_filesystem_is_tried_and_left_as_it_was(volume: Path) -> None:
    answer = owners.probe(volume / "not/there/yet")
    assert list(volume.iterdir()) == []
    if IS_ROOT:
        assert answer == owners.Answer()


def test_a_filesystem_that_keeps_no_owners_is_found(volume: Path) -> None:
    """Run as root of a namespace with one user: there, chown to another is refused as such filesystems refuse it."""
    script = f"from pathlib import Path; from hearmeman.boot import owners; print(owners.probe(Path({str(volume)!r})))"
    source = str(Path(owners.__file__).parents[2])
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", script]
    done = subprocess.run(
        command, env={"PYTHONPATH": source}, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "refused='Invalid argument'" in done.stdout
    assert "shared=False" in done.stdout
    assert list(volume.iterdir()) == []
