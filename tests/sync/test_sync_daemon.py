"""The daemon against a real S3 server: everything written ends in the bucket, whole, once, and nothing is overwritten."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.r2 import R2
from fakes.s3 import S3
from hearmeman.sync.daemon import ALL_SECONDS
from hearmeman.sync.finished import BLIND_SETTLE
from support.outputs import png
from support.sync_process import Sync, as_sync_user


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with S3() as s3:
        yield s3


@pytest.fixture
def sync(server: S3, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sync]:
    """A running daemon whose keys begin with the test's name."""
    daemon = Sync(tmp_path, {**server.environ(), "R2_PREFIX": request.node.name}).start()
    try:
        daemon.wait_said("sync.reconciled")
        yield daemon
    finally:
        daemon.kill()


def stored(server: S3, prefix: str) -> dict[str, bytes]:
    """Key without its prefix and date -> content."""
    found = {key: body for key, body in server.objects().items() if key.startswith(f"{prefix}/")}
    return {key.split("/", 2)[2]: body for key, body in found.items()}


def test_outputs_arrive(server: S3, sync: Sync, request: pytest.FixtureRequest) -> None:
    (sync.output / "a.png").write_bytes(b"a")
    (sync.output / "video/new").mkdir(parents=True)
    video = png(b"b" * 9_000_000)
    (sync.output / "video/new/b.MP4").write_bytes(video)
    (sync.output / "c.tmp").write_bytes(b"c")
    (sync.output / "c.tmp").rename(sync.output / "c d ü.flac")
    (sync.output / ".hidden.png").write_bytes(b"x")
    (sync.output / "notes.txt").write_bytes(b"x")
    wanted = {"a.png": b"a", "video/new/b.MP4": video, "c d ü.flac": b"c"}
    sync.wait_for(lambda: stored(server, request.node.name) == wanted, "three outputs and no more")
    assert sync.stop() == 0


@pytest.mark.alone
def test_files_in_folders_made_a_moment_before(server: S3, sync: Sync, request: pytest.FixtureRequest) -> None:
    # Nearly all of these are closed before their folder is watched.
    began = time.monotonic()
    for number in range(16):
        folder = sync.output / f"video/{number}/take"
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(png(number))
    sync.wait_for(lambda: len(stored(server, request.node.name)) == 16, "all sixteen")
    assert time.monotonic() - began < ALL_SECONDS - 2, "they were found only when all was looked at"
    assert sync.stop() == 0


def test_equal_names_of_other_content_stand_beside(server: S3, sync: Sync, request: pytest.FixtureRequest) -> None:
    path = sync.output / "a.png"
    path.write_bytes(b"first")
    sync.wait_for(lambda: len(stored(server, request.node.name)) == 1, "the first")
    path.write_bytes(b"second")
    sync.wait_for(lambda: len(stored(server, request.node.name)) == 2, "the second")
    found = stored(server, request.node.name)
    assert found["a.png"] == b"first"
    assert sorted(found.values()) == [b"first", b"second"]
    path.touch()
    path.unlink()
    assert sync.stop() == 0
    assert stored(server, request.node.name) == found


def test_a_file_written_just_before_the_stop_is_sent(server: S3, sync: Sync, request: pytest.FixtureRequest) -> None:
    (sync.output / "last.png").write_bytes(b"last")
    assert sync.stop() == 0
    assert stored(server, request.node.name) == {"last.png": b"last"}


def test_the_journal_spares_the_bucket(tmp_path: Path) -> None:
    with S3() as server:
        daemon = Sync(tmp_path, server.environ())
        before = png(b"written while nothing ran")
        (daemon.output / "before.png").write_bytes(before)
        daemon.start()
        daemon.wait_said("sync.uploaded")
        assert daemon.stop() == 0
        # With the server gone, a second start that asked it anything would not end with 0.
        server.stop()
        daemon.start()
        daemon.wait_for(lambda: daemon.log().count("sync.started") == 2, "the second start")
        assert daemon.stop() == 0
        # Without the journal the bucket is asked, and holds it already.
        server.start()
        next(daemon.state.glob("sync-*.db")).unlink()
        daemon.start()
        daemon.wait_said("sync.already_there")
        assert daemon.stop() == 0
        assert list(server.objects().values()) == [before]


def test_links_are_not_followed(server: S3, sync: Sync, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret.png").write_bytes(b"secret")
    (sync.output / "link.png").symlink_to(tmp_path / "secret.png")
    (sync.output / "folder").symlink_to(tmp_path / "elsewhere")
    (sync.output / "own.png").write_bytes(b"own")
    sync.wait_said("sync.uploaded")
    assert sync.stop() == 0
    assert stored(server, request.node.name) == {"own.png": b"own"}


def test_an_outage_is_said_once_and_heals(tmp_path: Path) -> None:
    with S3() as server:
        daemon = Sync(tmp_path, server.environ())
        server.stop()
        daemon.start()
        for number in range(5):
            (daemon.output / f"{number}.png").write_bytes(png(number))
        daemon.wait_said("kind=unreachable")
        daemon.wait_for(lambda: "cannot be reached" in daemon.report().get("problem", ""), "the problem in the report")
        daemon.wait_for(lambda: daemon.report()["backlog_files"] == 5, "all five in the report")
        server.start()
        daemon.wait_for(lambda: len(server.objects()) == 5, "all five")
        assert daemon.stop() == 0
        assert daemon.log().count("sync.failed") == 1
        assert daemon.log().count("sync.healed") == 1
        assert daemon.report()["problem"] == ""


@pytest.mark.alone
def test_what_is_left_at_the_stop_is_named_and_sent_by_the_next_start(tmp_path: Path) -> None:
    with S3() as server:
        daemon = Sync(tmp_path, {**server.environ(), "SYNC_DRAIN_SECONDS": "1"})
        server.stop()
        (daemon.output / "a.png").write_bytes(png(b"a"))
        daemon.start()
        daemon.wait_said("sync.failed")
        assert daemon.stop() == 3
        assert "sync.left file=a.png" in daemon.log()
        server.start()
        daemon.start()
        daemon.wait_for(lambda: list(server.objects().values()) == [png(b"a")], "the file that was left")
        assert daemon.stop() == 0


def test_names_that_are_not_utf8(server: S3, sync: Sync, request: pytest.FixtureRequest) -> None:
    raw = os.fsencode(sync.output) + b"/\xff\xfe %FF.png"
    with open(raw, "wb") as file:  # noqa: PTH123 (a Path holds no bytes)
        file.write(b"raw")
    sync.wait_for(lambda: stored(server, request.node.name) == {"%FF%FE %25FF.png": b"raw"}, "the file")
    assert sync.stop() == 0


@pytest.mark.alone
def test_seconds_from_the_last_byte(server: S3, sync: Sync, request: pytest.FixtureRequest) -> None:
    seconds = []
    for number in range(5):
        (sync.output / f"{number}.png").write_bytes(os.urandom(2_000_000))
        began = time.monotonic()
        wanted = number + 1
        sync.wait_for(lambda wanted=wanted: len(stored(server, request.node.name)) == wanted, "the file")  # type: ignore[misc]
        seconds.append(time.monotonic() - began)
    # Nothing in these bytes tells that they are whole: without the close it would take longer.
    assert max(seconds) < BLIND_SETTLE - 5, seconds
    assert sync.stop() == 0


def test_missing_settings_are_named(tmp_path: Path) -> None:
    daemon = Sync(tmp_path, {}).start()
    assert daemon.ended() == 2
    assert "R2_ENDPOINT, R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY must be set" in daemon.log()


def test_what_was_half_sent_of_a_file_that_is_gone_is_given_up(tmp_path: Path) -> None:
    with R2() as r2:
        daemon = Sync(tmp_path, r2.environ()).start()
        try:
            r2.fail(503, "ServiceUnavailable", operation="complete_upload", key="large.mp4", times=1000)

            def tries() -> int:
                return len([one for one in r2.operations("complete_upload") if one.key.endswith("large.mp4")])

            (daemon.output / "large.mp4").write_bytes(png(bytes(101 * 1024**2)))
            daemon.wait_for(lambda: tries() > 1, "two tries to complete")
            daemon.kill()
            assert len(r2.uploads) == 1
            (daemon.output / "large.mp4").unlink()
            r2.heal()
            daemon.start()
            daemon.wait_for(lambda: r2.uploads == {}, "the upload given up")
            assert daemon.stop() == 0
            assert r2.objects == {}
            assert len([one for one in r2.operations("upload_part") if one.key.endswith("large.mp4")]) == 3
        finally:
            daemon.kill()


def test_a_small_file_does_not_wait_behind_large_ones(tmp_path: Path) -> None:
    with R2(keep=False) as r2:
        gate = threading.Event()

        def wait(operation: str, key: str) -> None:
            if operation == "upload_part":
                gate.wait()

        r2.before = wait
        daemon = Sync(tmp_path, r2.environ()).start()
        try:
            for number in range(5):
                (daemon.output / f"{number}.mp4").write_bytes(png(b"%d" % number * (101 * 1024**2)))
            daemon.wait_for(lambda: len(r2.uploads) == 4, "four large ones under way")
            (daemon.output / "a.png").write_bytes(png(b"a"))
            daemon.wait_for(lambda: len(r2.objects) == 1, "the small one")
            assert len(r2.uploads) == 4
            gate.set()
            daemon.wait_for(lambda: len(r2.objects) == 6, "all")
            assert daemon.stop() == 0
        finally:
            gate.set()
            daemon.kill()


def test_a_disk_full_at_the_first_start_is_named_with_what_to_do(tmp_path: Path) -> None:
    with R2() as r2:
        _full_at_first(r2, Sync(tmp_path, r2.environ()))


def _full_at_first(r2: R2, daemon: Sync) -> None:
    (daemon.output / "a.png").write_bytes(png(b"a"))
    fill = 'dd if=/dev/zero of="$0/fill" bs=4k 2>/dev/null; chmod 777 "$0"; exec "$@"'
    inside = ["bwrap", "--dev-bind", "/", "/", *(["--cap-add", "ALL"] if os.geteuid() == 0 else [])]
    inside += ["--size", str(1 << 20), "--tmpfs", str(daemon.state), "--", "sh", "-c", fill, str(daemon.state)]
    daemon.start(before=[*inside, *as_sync_user([])])
    assert daemon.ended() == 1
    assert "nothing was uploaded" in daemon.log()
    assert "free some space" in daemon.log()
    assert str(daemon.state) in daemon.log()
    assert "Traceback" not in daemon.log()
    assert r2.objects == {}
    # The advice followed: with space it works.
    daemon.start()
    daemon.wait_for(lambda: len(r2.objects) == 1, "the picture")
    daemon.stop()


@pytest.mark.alone
def test_an_upload_is_reported_soon_though_nothing_else_happens(sync: Sync) -> None:
    for number in range(1, 4):
        (sync.output / f"{number}.png").write_bytes(png(b"a"))
        sync.wait_for(lambda number=number: sync.log().count("sync.uploaded") == number, "the upload")  # type: ignore[misc]
        began = time.monotonic()
        sync.wait_for(lambda number=number: sync.report().get("uploaded_files") == number, "the report")  # type: ignore[misc]
        assert time.monotonic() - began < 1.5
