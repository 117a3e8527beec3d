"""Reading and writing below ComfyUI's folder: no link leads out of it, nothing there is replaced, owners are right."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hearmeman.folder import Folder
from hearmeman.users import COMFYUI
from support.as_pod import give_to_comfyui
from support.waiting import PATIENCE


@pytest.fixture
def base(tmp_path: Path) -> Path:
    found = tmp_path / "ComfyUI"
    (found / "user/default").mkdir(parents=True)
    (found / "user/default/a.json").write_text("a")
    return give_to_comfyui(found)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    return tmp_path / "outside"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def listed(base: Path) -> list[str]:
    with Folder(base) as folder:
        return sorted(path for path, _ in folder.files("user", lambda path: True))


def add(base: Path, path: str, content: bytes = b"new") -> bool:
    def fill(to: int) -> None:
        os.write(to, content)

    with Folder(base) as folder:
        return folder.add(path, fill, 10**18)


def test_no_link_is_followed_when_reading(base: Path, outside: Path) -> None:
    (base / "user/file").symlink_to(outside / "secret")
    (base / "user/folder").symlink_to(outside)
    os.mkfifo(base / "user/pipe")
    assert listed(base) == ["user/default/a.json"]
    with Folder(base) as folder:
        for path in ("user/file", "user/folder/secret", "user/pipe", "user/../../outside/secret", ".."):
            with pytest.raises(OSError):
                os.close(folder.open(path))
    (base / "user").rename(base / "old")
    (base / "user").symlink_to(outside)
    assert listed(base) == []


def test_another_users_file_is_not_read_by_a_hard_link(base: Path, outside: Path) -> None:
    # As a process that may not read the secret could lay it where protected_hardlinks is off.
    os.link(outside / "secret", base / "user/default/link")
    if os.geteuid() == 0:
        with Folder(base) as folder, pytest.raises(OSError, match="hard link to another user's file"):
            os.close(folder.open("user/default/link"))
    os.link(base / "user/default/a.json", base / "user/default/own")
    with Folder(base) as folder:
        os.close(folder.open("user/default/own"))


def test_a_new_file_belongs_to_the_owner_of_its_folder(base: Path) -> None:
    assert add(base, "user/default/workflows/deep/b.json")
    path = base / "user/default/workflows/deep/b.json"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mtime_ns == 10**18
    for made in (path, path.parent, path.parent.parent):
        assert made.stat().st_uid == (COMFYUI.uid if os.geteuid() == 0 else os.geteuid())
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(path.parent) == ["b.json"]


def test_folders_that_several_threads_make_belong_to_the_owner_too(base: Path) -> None:
    with Folder(base) as folder, ThreadPoolExecutor(8) as pool:
        for take in range(40):
            start = threading.Barrier(8)

            def add(number: int, take: int = take, start: threading.Barrier = start) -> bool:
                start.wait(PATIENCE)
                return folder.add(f"user/{take}/b/c/{number}.json", lambda to: None, 10**18)

            assert all(pool.map(add, range(8)))
    owner = base.stat().st_uid
    assert {path.stat().st_uid for path in base.rglob("*")} == {owner}


def test_nothing_is_ever_replaced(base: Path, outside: Path) -> None:
    assert not add(base, "user/default/a.json")
    assert (base / "user/default/a.json").read_text() == "a"
    (base / "user/nowhere").symlink_to(outside / "none")
    assert not add(base, "user/nowhere")
    assert not (outside / "none").exists()
    with Folder(base) as folder:
        assert folder.has("user/nowhere")
        assert folder.has("user/default")
        assert not folder.has("user/none")


def test_no_link_is_followed_when_writing(base: Path, outside: Path) -> None:
    (base / "user/folder").symlink_to(outside)
    with pytest.raises(OSError):
        add(base, "user/folder/x")
    with pytest.raises(OSError):
        add(base, "user/default/a.json/x")
    assert names(outside) == ["secret"]


def test_a_failed_file_leaves_nothing(base: Path) -> None:
    def fail(to: int) -> None:
        os.write(to, b"half")
        raise OSError("no more")

    with Folder(base) as folder, pytest.raises(OSError, match="no more"):
        folder.add("user/default/b.json", fail, 0)
    assert names(base / "user/default") == ["a.json"]


def test_folders_that_turn_into_links_meanwhile_lead_nowhere(base: Path, outside: Path) -> None:
    """Another process swaps a folder for a link out of the tree, as fast as it can."""
    swapped, over = base / "user/swap", threading.Event()
    swapped.mkdir()

    def swap() -> None:
        # What is in the way is what `add` made where nothing was for a moment.
        while not over.is_set():
            with contextlib.suppress(OSError):
                swapped.rename(base / "aside")
            with contextlib.suppress(OSError):
                swapped.symlink_to(outside)
                swapped.unlink()
            shutil.rmtree(swapped, ignore_errors=True)
            with contextlib.suppress(OSError):
                (base / "aside").rename(swapped)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(300):
            assert all(not path.endswith("secret") for path in listed(base))
            try:
                add(base, f"user/swap/{number}")
            except OSError:
                continue
    finally:
        over.set()
        thread.join()
    assert names(outside) == ["secret"]
