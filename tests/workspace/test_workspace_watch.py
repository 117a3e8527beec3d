"""SYNC_WORKSPACE: the sync saves what changes beside the outputs, and once more at the stop."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.r2 import R2
from support.as_pod import as_user, give_to_comfyui
from support.sync_process import Sync
from support.waiting import PATIENCE

WORKFLOW = "user/default/workflows/a.json"


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


@pytest.fixture
def daemon(r2: R2, tmp_path: Path) -> Sync:
    comfyui = tmp_path / "ComfyUI"
    (comfyui / "user/default/workflows").mkdir(parents=True)
    (comfyui / "input").mkdir()
    return Sync(tmp_path, {**r2.environ(), "VOLUME_DIR": str(tmp_path), "SYNC_WORKSPACE": "true"})


def newest(r2: R2) -> dict[str, object]:
    """The files of the newest save."""
    saves = {key: content for key, content in r2.contents().items() if "/saves/" in key}
    found: dict[str, object] = json.loads(saves[max(saves)])["files"] if saves else {}
    return found


def write(daemon: Sync, path: str, text: str) -> None:
    target = Path(daemon.environ["VOLUME_DIR"]) / "ComfyUI" / path
    target.write_text(text)
    give_to_comfyui(target.parents[len(Path(path).parts) - 1])


def status(daemon: Sync) -> subprocess.CompletedProcess[str]:
    command = as_user([sys.executable, "-m", "hearmeman", "sync", "status"])
    return subprocess.run(command, env=daemon.environ, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_changes_are_saved_while_it_runs_and_the_last_at_the_stop(r2: R2, daemon: Sync) -> None:
    write(daemon, WORKFLOW, "first")
    daemon.start()
    try:
        daemon.wait_for(lambda: WORKFLOW in newest(r2), "the first save")
        daemon.wait_for(lambda: "workspace save 1" in status(daemon).stdout, "the save in the status")
        write(daemon, "input/b.png", "b")
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    assert sorted(newest(r2)) == ["input/b.png", WORKFLOW]
    assert "workspace.saved save=2 files=2 added=1 changed=0 removed=0" in daemon.log()


def test_a_bucket_that_does_not_answer_is_reported_once_and_tried_again(r2: R2, daemon: Sync) -> None:
    write(daemon, WORKFLOW, "first")
    r2.stop()
    daemon.start()
    try:
        daemon.wait_said("workspace.failed")
        daemon.wait_for(lambda: "workspace is not saved: " in status(daemon).stdout, "the problem in the status")
        r2.start()
        daemon.wait_for(lambda: WORKFLOW in newest(r2), "the save")
        daemon.wait_said("workspace.healed")
        # A server that is just starting may fail in another way, which is another report.
        said = [line.partition(" ")[2] for line in daemon.log().splitlines() if "workspace.failed" in line]
        assert len(said) == len(set(said))
        assert daemon.stop() == 0
    finally:
        daemon.kill()
