"""Encoders that pause while they write: one whole object a file, under the file's own name."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes.r2 import R2
from hearmeman.sync.keys import utc_date
from support.outputs import png
from support.sync_process import Sync
from support.writers import KINDS, encode, plays, write_late

PAUSE = 4.0
"""Encoders behind a slow model were seen to pause from 4 to 7 s."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are closed to all but one."""
    with tempfile.TemporaryDirectory(prefix="encoders-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_every_encoders_file_arrives_once_and_whole(folder: Path) -> None:
    with R2() as r2:
        daemon = Sync(folder, r2.environ())
        daemon.output.chmod(0o777)
        daemon.start()
        try:
            daemon.wait_said("sync.reconciled")
            with ThreadPoolExecutor(len(KINDS) + 1) as pool:
                made = {
                    pool.submit(encode, daemon.output / f"{kind}_00001.{KINDS[kind][0]}", kind, (PAUSE, 0.5)): kind
                    for kind in KINDS
                }
                late = pool.submit(write_late, daemon.output / "late_00001.mp4", png(b"late" * 1000), PAUSE, PAUSE)
                for one in (*made, late):
                    one.result()
            paths = list(daemon.output.iterdir())
            files = {path.name: path.read_bytes() for path in paths}
            keys = {path.name: f"outputs/{utc_date(path.stat().st_mtime_ns)}/{path.name}" for path in paths}
            assert len(files) == len(KINDS) + 1
            daemon.wait_for(lambda: len(r2.objects) >= len(files), "all of them")
            assert daemon.stop() == 0
            assert r2.contents() == {keys[name]: content for name, content in files.items()}
            for name in files:
                assert name.startswith("late") or plays(daemon.output / name), name
        finally:
            daemon.kill()


def test_what_was_half_written_when_the_daemon_started_waits_for_its_end(folder: Path) -> None:
    with R2() as r2:
        daemon = Sync(folder, r2.environ())
        daemon.output.chmod(0o777)
        with ThreadPoolExecutor(2) as pool:
            # Its first half is there before anybody watches.
            video = pool.submit(encode, daemon.output / "video.webm", "webm", (0.1, PAUSE + 1))
            sound = pool.submit(encode, daemon.output / "sound.mp3", "mp3", (0.1, PAUSE + 1))
            time.sleep(1.5)
            daemon.start()
            try:
                video.result()
                sound.result()
                files = {path.name: path.read_bytes() for path in daemon.output.iterdir()}
                daemon.wait_for(lambda: len(r2.objects) >= 2, "both")
                assert daemon.stop() == 0
                assert sorted(r2.contents().values()) == sorted(files.values())
            finally:
                daemon.kill()
