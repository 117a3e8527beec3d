"""Files that a person named: whole or as before, and devices, pipes and links stay what they are."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from hearmeman.state_file import write_named


def test_a_file_is_replaced_whole_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    write_named(tmp_path / "file", "one")
    write_named(tmp_path / "link", "two")
    assert (tmp_path / "file").read_text() == "two"
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=write_named, args=(pipe, "text"))
    writer.start()
    assert pipe.read_text() == "text"
    writer.join()
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_device_stays_a_device() -> None:
    before = Path("/dev/null").lstat()
    write_named(Path("/dev/null"), "text")
    assert Path("/dev/null").lstat().st_ino == before.st_ino


def test_a_folder_and_a_place_in_no_folder_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for place in ("folder", "no/file"):
        with pytest.raises(OSError, match=r"Is a directory|No such file"):
            write_named(tmp_path / place, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
