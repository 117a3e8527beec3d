"""Two daemons, two pods, one bucket: nothing is lost, nothing is overwritten."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.r2 import R2
from fakes.s3 import S3
from hearmeman.cli import main
from support.outputs import png
from support.sync_process import Sync


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


def test_two_pods_with_equal_names(r2: R2, tmp_path: Path) -> None:
    pods = [Sync(tmp_path / name, r2.environ()).start() for name in ("one", "two")]
    try:
        for pod in pods:
            pod.wait_said("sync.reconciled")
        for number in range(20):
            for pod in pods:
                (pod.output / f"ComfyUI_{number:05}_.png").write_bytes(f"{pod.output} {number}".encode())
                (pod.output / f"same_{number}.png").write_bytes(b"%d" % number)
        for pod in pods:
            assert pod.stop() == 0
    finally:
        for pod in pods:
            pod.kill()
    wanted = [f"{pod.output} {number}".encode() for pod in pods for number in range(20)]
    assert sorted(r2.contents().values()) == sorted([*wanted, *(b"%d" % number for number in range(20))])
    assert r2.overwritten == []


def test_two_pods_on_one_volume(tmp_path: Path) -> None:
    # The real server knows no conditions; the pods' looks and the equal contents suffice.
    with S3() as server:
        pods = [Sync(tmp_path, server.environ(), name).start() for name in ("one", "two")]
        try:
            for pod in pods:
                pod.wait_said("sync.reconciled")
            for number in range(20):
                (pods[0].output / f"{number}.png").write_bytes(b"%d" % number)
            for pod in pods:
                assert pod.stop() == 0
        finally:
            for pod in pods:
                pod.kill()
        assert sorted(server.objects().values()) == sorted(b"%d" % number for number in range(20))


@pytest.mark.parametrize("journal_is_left", [True, False])
def test_a_new_pod_on_the_same_volume_reads_no_output_again(r2: R2, tmp_path: Path, journal_is_left: bool) -> None:
    first = Sync(tmp_path, r2.environ(), "first")
    files = [first.output / f"{number}.png" for number in range(8)]
    for number, path in enumerate(files):
        path.write_bytes(png(b"first %d" % number))
    first.start()
    try:
        first.wait_for(lambda: len(r2.objects) == 8, "all of the first pod's")
        assert first.stop() == 0
    finally:
        first.kill()
    if not journal_is_left:
        next(first.state.glob("sync-*.db")).unlink()
    # Other bytes of the same length and time: if they were read, they would go up too.
    for number, path in enumerate(files):
        times = path.stat()
        path.write_bytes(png(b"FIRST %d" % number))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    asked = len(r2.requests)
    second = Sync(tmp_path, r2.environ(), "second").start()
    try:
        second.wait_for(lambda: second.report().get("journaled_files") == 8, "to know all")
        (second.output / "new.png").write_bytes(png(b"new"))
        second.wait_for(lambda: len(r2.objects) == 9, "the new one")
        assert second.stop() == 0
    finally:
        second.kill()
    made = [request.operation for request in r2.requests[asked:] if not request.key.endswith("/new.png")]
    assert made == ([] if journal_is_left else ["head_object"] * 8)
    assert len(r2.objects) == 9


def test_a_second_daemon_of_one_pod_is_refused(r2: R2, tmp_path: Path) -> None:
    first = Sync(tmp_path, r2.environ()).start()
    try:
        first.wait_said("sync.started")
        second = Sync(tmp_path, r2.environ()).start()
        assert second.ended() == 1
        [pid, words] = re.findall(
            r"a sync is already running \(pid (\d+)\): see `hearmeman (sync status)`", second.log()
        )[0]
        assert int(pid) == first.process.pid
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            assert main([*words.split(), "--json"], first.environ) == 0
        assert (json.loads(shown.getvalue())["running"], json.loads(shown.getvalue())["pid"]) == (True, int(pid))
        assert first.stop() == 0
    finally:
        first.kill()
