"""The kernel's news of a folder: who writes, who has closed, what came in, and what was lost."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.r2 import R2
from hearmeman.sync.finished import BLIND_SETTLE, Writer
from hearmeman.sync.watch import Watch
from support.outputs import png
from support.sync_process import Sync


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    (tmp_path / "sub").mkdir()
    found = Watch(tmp_path)
    assert found.problem == ""
    for folder in ("", "sub"):
        found.add(folder)
    yield found
    found.close()


def test_a_file_is_open_until_its_writer_closes_it(watch: Watch) -> None:
    path = watch.root / "sub/a.mp4"
    with path.open("wb", buffering=0) as file:
        assert watch.read().files == {"sub/a.mp4": None}  # Made, and empty yet.
        file.write(b"half")
        assert watch.read().files == {"sub/a.mp4": Writer.OPEN}
        path.read_bytes()  # A reader's close is no news.
        assert watch.read().files == {}
    assert watch.read().files == {"sub/a.mp4": Writer.CLOSED}
    with path.open("ab") as file:
        assert watch.read().files == {}
        file.write(b"more")
    assert watch.read().files == {"sub/a.mp4": Writer.CLOSED}
    os.utime(path, (1, 1))
    assert watch.read().files == {"sub/a.mp4": None}


def test_a_file_moved_into_place_is_closed_unless_it_is_still_written(watch: Watch) -> None:
    (watch.root / "a.tmp").write_bytes(b"a")
    (watch.root / "a.tmp").rename(watch.root / "sub/a.png")
    assert watch.read().files == {"a.tmp": Writer.CLOSED, "sub/a.png": Writer.CLOSED}
    with (watch.root / "b.tmp").open("wb", buffering=0) as file:
        file.write(b"half")
        (watch.root / "b.tmp").rename(watch.root / "b.png")
        assert watch.read().files["b.png"] is Writer.OPEN
        file.write(b"whole")
    assert watch.read().files == {"b.png": Writer.CLOSED}


def test_a_link_into_place_has_no_writer(watch: Watch, tmp_path: Path) -> None:
    (watch.root / "a.tmp").write_bytes(b"a")
    watch.read()
    (watch.root / "sub/a.png").hardlink_to(watch.root / "a.tmp")
    assert watch.read().files["sub/a.png"] is None


def test_folders_that_come_are_named_and_keep_their_watches_when_they_move(watch: Watch) -> None:
    (watch.root / "sub/deep").mkdir()
    assert watch.read().folders == ["sub/deep"]
    watch.add("sub/deep")
    (watch.root / "sub").rename(watch.root / "other")
    assert watch.read().folders == ["other"]
    (watch.root / "other/deep/a.png").write_bytes(b"a")
    (watch.root / "other/b.png").write_bytes(b"b")
    assert watch.read().files == {"other/deep/a.png": Writer.CLOSED, "other/b.png": Writer.CLOSED}
    (watch.root / "other/deep/a.png").unlink()
    (watch.root / "other/deep").rmdir()
    assert watch.read().files == {"other/deep/a.png": None}
    (watch.root / "other/deep").mkdir()
    assert watch.read().folders == ["other/deep"]


def test_a_link_to_a_folder_is_not_watched(watch: Watch, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (watch.root / "link").symlink_to(elsewhere)
    watch.read()
    watch.add("link")
    (elsewhere / "secret.png").write_bytes(b"secret")
    assert watch.read().files == {}


def test_names_that_are_not_utf8_are_names(watch: Watch) -> None:
    with open(os.fsencode(watch.root) + b"/\xff\xfe.png", "wb") as file:  # noqa: PTH123 (a Path holds no bytes)
        file.write(b"raw")
    (watch.root / "next.png").write_bytes(b"next")
    assert watch.read().files == {"\udcff\udcfe.png": Writer.CLOSED, "next.png": Writer.CLOSED}


def test_more_news_than_the_kernel_keeps_is_said(watch: Watch) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with (watch.root / "open.mp4").open("wb", buffering=0) as file:
        file.write(b"half")
        # Two files in turn, so that equal reports do not become one.
        one, other = watch.root / "a.png", watch.root / "b.png"
        for _ in range(most // 2 + 10):
            one.touch()
            other.touch()
        assert watch.read().lost
        assert not watch.read().lost
        file.write(b"whole")
    assert watch.read().files == {"open.mp4": Writer.CLOSED}


LIMITED = """
echo {value} > /proc/sys/user/max_inotify_{what} && exec "$@"
"""


@pytest.mark.parametrize(("what", "value"), [("watches", 2), ("instances", 0)])
def test_the_kernels_limit_is_said_with_what_raises_it(what: str, value: int, tmp_path: Path) -> None:
    with R2() as r2:
        daemon = Sync(tmp_path, r2.environ())
        for folder in ("a", "b", "c"):
            (daemon.output / folder).mkdir()
        # In a user namespace of its own, whose limits its root may set.
        limited = ["unshare", "--user", "--map-root-user", "sh", "-c", LIMITED.format(value=value, what=what), "sh"]
        daemon.start(before=limited)
        try:
            daemon.wait_said("sync.unwatched")
            assert f"inotify {what} is reached" in daemon.log()
            assert f"sysctl fs.inotify.max_user_{what}" in daemon.log()
            daemon.wait_said("sync.reconciled")
            for folder in ("a", "b", "c"):
                (daemon.output / folder / "a.png").write_bytes(png(folder))
            daemon.wait_for(lambda: len(r2.objects) == 3, "all, found by scanning")
            assert daemon.stop() == 0
            assert daemon.log().count("sync.unwatched") == 1
        finally:
            daemon.kill()


@pytest.mark.alone
def test_a_name_that_is_not_utf8_does_not_blind_the_daemon(tmp_path: Path) -> None:
    with R2() as r2:
        daemon = Sync(tmp_path, r2.environ()).start()
        try:
            daemon.wait_said("sync.reconciled")
            for number in range(3):
                raw = os.fsencode(daemon.output) + b"/\xff%d.png" % number
                with open(raw, "wb") as file:  # noqa: PTH123
                    file.write(b"raw %d" % number)
                # No format tells that this one is finished: only its close does, long before stillness would.
                (daemon.output / f"{number}.mp3").write_bytes(b"%d" % number)
                began = time.monotonic()
                daemon.wait_for(lambda n=number: len(r2.objects) == 2 * n + 2, "both")  # type: ignore[misc]
                assert time.monotonic() - began < BLIND_SETTLE - 2
            assert daemon.stop() == 0
        finally:
            daemon.kill()


def test_rewriters_do_not_end_the_daemon_and_every_last_version_arrives(tmp_path: Path) -> None:
    with R2(latency=0.1) as r2:
        daemon = Sync(tmp_path, r2.environ()).start()
        try:
            daemon.wait_said("sync.reconciled")
            for version in range(40):
                for number in range(3):
                    with (daemon.output / f"{number}.png").open("r+b" if version else "wb") as file:
                        file.write(png(f"{number} {version:02}"))
                time.sleep(0.05 if version % 10 else 0.6)  # Some versions go up, and are overtaken meanwhile.
            wanted = {png(f"{number} 39") for number in range(3)}
            daemon.wait_for(lambda: wanted <= set(r2.contents().values()), "the last version of each")
            assert daemon.stop() == 0
            whole = {png(f"{number} {version:02}") for number in range(3) for version in range(40)}
            assert set(r2.contents().values()) <= whole
            assert len(set(r2.contents().values())) == len(r2.objects)
        finally:
            daemon.kill()


def test_the_daemon_is_another_user_than_the_writer_where_it_can_be(tmp_path: Path) -> None:
    with R2() as r2:
        daemon = Sync(tmp_path, r2.environ()).start()
        try:
            daemon.wait_said("sync.started")
            status = Path(f"/proc/{daemon.process.pid}/status").read_text()
            uid = int(status.partition("Uid:")[2].split()[0])
            assert (uid != os.geteuid()) == (os.geteuid() == 0)
            (daemon.output / "a.png").write_bytes(png())
            assert (daemon.output / "a.png").stat().st_uid == os.geteuid()
            daemon.wait_for(lambda: len(r2.objects) == 1, "the file")
            assert daemon.stop() == 0
        finally:
            daemon.kill()
