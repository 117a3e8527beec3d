"""Two daemons, two pods, one bucket: nothing is lost, nothing is overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.r2 import R2
from fakes.s3 import S3
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


def test_a_second_daemon_of_one_pod_is_refused(r2: R2, tmp_path: Path) -> None:
    first = Sync(tmp_path, r2.environ()).start()
    try:
        first.wait_said("sync.started")
        second = Sync(tmp_path, r2.environ()).start()
        assert second.process.wait(20) == 1
        second._reader.join(5)
        assert f"a sync runs already (pid {first.process.pid})" in second.log()
        assert first.stop() == 0
    finally:
        first.kill()
