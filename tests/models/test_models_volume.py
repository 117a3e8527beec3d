"""Volumes as they are: a folder on another disk, read-only, full; fetched by the pod's own user for it."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import Hub, Repo
from fakes.serving import Stored
from hearmeman.state_file import read_json
from hearmeman.users import COMFYUI, FETCH
from support.fetching import Case, give_to_fetch
from support.waiting import wait_for

MIB = 1024**2
STORED = Stored(hashlib.shake_128(b"volume").digest(12 * MIB + 5))


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({"a/b": Repo({"f.bin": STORED})}) as running:
        yield running


@pytest.fixture
def case(hub: Hub) -> Iterator[Case]:
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory(prefix="volume-") as folder:
        made = Case(Path(folder), {"HF_ENDPOINT": hub.url, "DOWNLOAD_TIMEOUT": "30"})
        source = {"kind": "huggingface", "repo": "a/b", "path": "f.bin"}
        made.add("one", source, size=len(STORED.data), sha256=STORED.sha256)
        yield made


@pytest.fixture
def other_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="disk-", dir="/dev/shm") as folder:
        give_to_fetch(Path(folder))
        yield Path(folder)


def test_a_folder_on_another_disk_gets_its_files_by_a_rename_on_that_disk(
    case: Case, hub: Hub, other_disk: Path
) -> None:
    before = case.as_in_pod()
    assert other_disk.stat().st_dev != case.folder.stat().st_dev
    (case.folder / "checkpoints").symlink_to(other_disk)
    hub.rate = MIB
    process = case.start("fetch", before=before)
    staged = other_disk / ".hearmeman/staging/one"
    wait_for(lambda: read_json(staged / ".journal.json").get("done", 0) > 0, "something to be noted")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert [path.name for path in staged.iterdir() if not path.name.startswith(".")] == ["one.bin.part"]
    assert not (case.folder / ".hearmeman/staging").exists()

    hub.rate = 0
    process = case.start("fetch", before=before)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert "model.resumed" in err
    assert (other_disk / "one.bin").read_bytes() == STORED.data
    assert [path.name for path in other_disk.iterdir()] == ["one.bin"], "nothing is left beside it"
    if os.geteuid() == 0:
        seen = (other_disk / "one.bin").stat()
        assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o777) == (FETCH.uid, COMFYUI.gid, 0o664)


def test_a_persons_own_file_on_another_disk_is_set_aside_on_that_disk(case: Case, other_disk: Path) -> None:
    before = case.as_in_pod()
    (case.folder / "checkpoints").symlink_to(other_disk)
    (other_disk / "one.bin").write_bytes(b"mine")
    give_to_fetch(other_disk / "one.bin")
    process = case.start("fetch", before=before)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert (other_disk / "one.bin").read_bytes() == STORED.data
    assert (other_disk / ".hearmeman/replaced/checkpoints/one.bin").read_bytes() == b"mine"


@pytest.mark.parametrize("verified", [True, False], ids=["verified", "never-verified"])
@pytest.mark.parametrize("volume", ["read-only", "full"])
def test_all_is_there_and_nothing_can_be_written(case: Case, hub: Hub, volume: str, verified: bool) -> None:
    """So WAIT_FOR_MODELS lets ComfyUI start."""
    before = case.as_in_pod()
    process = case.start("fetch", before=before)
    assert process.wait() == 0, process.communicate()
    process.communicate()
    if not verified:
        shutil.rmtree(case.folder / ".hearmeman")
    asked = len(hub.requests)
    place = str(case.volume)
    inside = ["bwrap", "--dev-bind", "/", "/", *(["--cap-add", "ALL"] if os.geteuid() == 0 else [])]
    if volume == "read-only":
        inside += ["--ro-bind", place, place, "--"]
    else:
        fill = 'cp -a "$0"/. "$1"; dd if=/dev/zero of="$1/fill" bs=4k 2>/dev/null; shift; exec "$@"'
        copy = tempfile.mkdtemp(prefix="copy-", dir="/dev/shm")
        shutil.copytree(case.volume, copy, dirs_exist_ok=True, symlinks=True)
        inside += ["--size", str(13 * MIB), "--tmpfs", place, "--", "sh", "-c", fill, copy, place]
    process = case.start("fetch", before=(*inside, *before))
    _, err = process.communicate()
    if volume == "full":
        shutil.rmtree(copy)
    assert process.returncode == 0, err
    assert "models.complete files=1" in err
    assert "Traceback" not in err
    assert len(hub.requests) == asked


def test_what_is_missing_on_a_volume_that_cannot_be_written_is_a_passing_cause(case: Case) -> None:
    before = case.as_in_pod()
    inside = ["bwrap", "--dev-bind", "/", "/", *(["--cap-add", "ALL"] if os.geteuid() == 0 else [])]
    inside += ["--ro-bind", str(case.volume), str(case.volume), "--"]
    process = case.start("fetch", before=(*inside, *before))
    _, err = process.communicate()
    assert process.returncode == 75, err
    assert "cannot be written: Read-only file system" in err
    assert "Traceback" not in err
