"""SYNC_KEEP_LOCAL_*: an output leaves the volume only when its object is proven to hold the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.r2 import R2
from hearmeman.settings import load
from hearmeman.sync.free import Local, Sweep, Sweeper, due
from hearmeman.sync.journal import Record
from hearmeman.sync.keys import object_key
from hearmeman.sync.tree import Seen
from support.as_pod import as_user, give_to_comfyui
from support.outputs import png
from support.sync_process import Sync
from support.waiting import PATIENCE, wait_for

DAY = 86400
NOW = 1_000 * DAY


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


@pytest.fixture
def daemon(r2: R2, tmp_path: Path) -> Sync:
    """A folder of three old outputs and a young one, all in the bucket; the sync has stopped again."""
    daemon = Sync(tmp_path, r2.environ())
    (daemon.output / "sub").mkdir()
    for name, days in (("old.png", 9), ("sub/mid.mp4", 5), ("late.wav", 2), ("new.png", 0)):
        path = daemon.output / name
        path.write_bytes(png(name.encode() * 100))
        os.utime(path, (time.time() - days * DAY,) * 2)
    give_to_comfyui(daemon.output)
    daemon.start()
    try:
        daemon.wait_for(lambda: len(r2.objects) == 4, "the outputs")
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    return daemon


def free(daemon: Sync, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = as_user([sys.executable, "-m", "hearmeman", "sync", "free", *words])
    env = {**daemon.environ, **environ}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)


def left(daemon: Sync) -> set[str]:
    return {str(path.relative_to(daemon.output)) for path in daemon.output.rglob("*") if path.is_file()}


def test_what_is_old_goes_and_the_rest_stays(r2: R2, daemon: Sync) -> None:
    assert "set SYNC_KEEP_LOCAL_DAYS or SYNC_KEEP_LOCAL_GB" in free(daemon).stderr
    shown = free(daemon, "--dry-run", SYNC_KEEP_LOCAL_DAYS="4")
    assert (shown.returncode, shown.stdout.count("would be removed")) == (0, 2), shown.stderr
    assert len(left(daemon)) == 4
    done = free(daemon, "--json", SYNC_KEEP_LOCAL_DAYS="4")
    assert done.returncode == 0, done.stderr
    assert [row["file"] for row in json.loads(done.stdout)["files"]] == ["old.png", "sub/mid.mp4"]
    assert left(daemon) == {"late.wav", "new.png"}
    assert len(r2.objects) == 4
    # The sync takes the gap for what it is, and a file of the same name is another output.
    (daemon.output / "old.png").write_bytes(png(b"another"))
    daemon.start()
    try:
        daemon.wait_for(lambda: len(r2.objects) == 5, "the new output")
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def test_the_oldest_go_until_the_rest_fits(daemon: Sync) -> None:
    assert free(daemon, SYNC_KEEP_LOCAL_GB="0.0000016").returncode == 0
    assert left(daemon) == {"late.wav", "new.png"}


def test_what_is_not_proven_stays(r2: R2, daemon: Sync) -> None:
    def key(name: str) -> str:
        return object_key("outputs", name, (daemon.output / name).stat().st_mtime_ns)

    del r2.objects[key("old.png")]
    r2.lay(key("sub/mid.mp4"), b"x" * (daemon.output / "sub/mid.mp4").stat().st_size)
    changed = daemon.output / "late.wav"
    before = changed.stat()
    changed.write_bytes(b"y" * before.st_size)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))  # Looks the same, holds something else.
    (daemon.output / "never-sent.png").write_bytes(b"z")
    os.utime(daemon.output / "never-sent.png", (time.time() - 30 * DAY,) * 2)
    everything = left(daemon)
    done = free(daemon, SYNC_KEEP_LOCAL_DAYS="1")
    assert done.returncode == 1
    assert left(daemon) == everything
    for words in ("is no longer in the bucket", "entity tag", "the object has other content (sha256)"):
        assert words in done.stdout
    assert "never-sent" not in done.stdout


def test_a_bucket_that_does_not_answer_keeps_everything(r2: R2, daemon: Sync) -> None:
    r2.may_read = False
    done = free(daemon, SYNC_KEEP_LOCAL_DAYS="1")
    assert (done.returncode, "object read and write" in done.stderr) == (1, True)
    assert len(left(daemon)) == 4


def test_the_running_sync_removes_and_says_so(r2: R2, daemon: Sync) -> None:
    facts: dict[str, object] = {}
    sweep = Sweep.of(load({**daemon.environ, "SYNC_KEEP_LOCAL_DAYS": "4"}))
    sweeper = Sweeper(sweep, lambda **more: facts.update(more), seconds=0.05)
    sweeper.start()
    wait_for(lambda: facts.get("removed_files") == 2, "both to be removed")
    sweeper.stop()
    sweeper.join(PATIENCE)
    assert left(daemon) == {"late.wav", "new.png"}


def local(path: str, days: float, size: int = 10**9, known: bool = True) -> Local:
    mtime_ns = int((NOW - days * DAY) * 1e9)
    record = Record(path, size, mtime_ns, "s", f"outputs/{path}", 0.0) if known else None
    return Local(path, Seen(size, mtime_ns, 1, 1), record)


@pytest.mark.parametrize(
    ("days", "gigabytes", "gone"),
    [
        (0, 0, []),
        (3, 0, ["a", "b"]),
        (3, 1, ["a", "b", "c"]),
        (0, 4, ["a"]),
        (0, 3.5, ["a", "b"]),
        (0, 0.1, ["a", "b", "c"]),  # Neither what is not in the bucket nor what is quite new.
    ],
)
def test_what_may_go(days: float, gigabytes: float, gone: list[str]) -> None:
    files = [local("a", 9), local("unknown", 8, known=False), local("b", 5), local("c", 1), local("new", 0.001)]
    assert [one.path for one in due(files, NOW, days, gigabytes)] == gone
