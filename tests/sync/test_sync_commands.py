"""`hearmeman sync status` and `cost`, the prompt's id, the folder watched by looking alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.comfyui import comfyui
from fakes.r2 import R2
from hearmeman.sync import cost, report
from support.outputs import png
from support.repository import ROOT
from support.sync_process import Sync
from support.waiting import PATIENCE

WORKFLOWS = ROOT / "workflows"


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


def run(daemon: Sync, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hearmeman", *words]
    return subprocess.run(command, env=daemon.environ, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_status_and_cost(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, r2.environ())
    before = run(daemon, "sync", "status")
    assert (before.returncode, "no sync has run here" in before.stderr) == (1, True)
    assert "is missing" in run(daemon, "sync", "cost").stderr
    daemon.start()
    try:
        daemon.wait_said("sync.reconciled")
        (daemon.output / "a.png").write_bytes(png(bytes(980)))
        daemon.wait_for(lambda: "sync.uploaded" in daemon.log() and daemon.report().get("uploaded_files") == 1, "a.png")
        running = run(daemon, "sync", "status", "--json")
        assert running.returncode == 0, running.stderr
        facts = json.loads(running.stdout)
        assert facts["running"]
        assert (facts["backlog_files"], facts["uploaded_bytes"], facts["pid"]) == (0, 1000, daemon.process.pid)
        assert facts["last_success_key"].endswith("/a.png")
        assert "1 file, 1 kB since the start" in run(daemon, "sync", "status").stdout
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    after = run(daemon, "sync", "status")
    assert (after.returncode, "not running" in after.stdout) == (1, True)
    found = json.loads(run(daemon, "sync", "cost", "--json").stdout)
    assert (found["objects"], found["stored_bytes"]) == (1, 1000)
    (month,) = found["months"]
    sent = [request.operation for request in r2.requests]
    # The first put is made twice, to see whether the bucket heeds its condition.
    assert (month["class_a"], month["class_b"]) == (sent.count("put_object"), sent.count("head_object")) == (2, 1)
    assert month["sent_bytes"] == 1000
    assert "2 class A and 1 class B requests" in run(daemon, "sync", "cost").stdout


def test_files_that_fail_are_counted_and_named_and_it_is_no_success(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, r2.environ())
    now = time.time() + 60  # "just now", however slowly the command starts.
    failing = [{"file": "a.png", "kind": "refused", "why": "the bucket said 400", "failures": 7, "since": now}]
    facts = {"failing_files": 3, "failing": failing, "last_error": "the bucket said 400", "last_error_at": now}
    (daemon.state / "sync.json").write_text(json.dumps({**facts, "problem": ""}))
    held = report.lock(daemon.state / "sync.lock")
    assert held is not None
    with held:
        shown = run(daemon, "sync", "status")
        assert shown.returncode == 1
        for words in ("failing   3 files", "a.png: the bucket said 400, 7 times, first ", "and 2 more"):
            assert words in shown.stdout
        assert "solved" not in shown.stdout
        (daemon.state / "sync.json").write_text(
            json.dumps({**facts, "failing_files": 0, "failing": [], "last_error_fixed_at": now})
        )
        shown = run(daemon, "sync", "status")
        assert (shown.returncode, "solved    the bucket said 400, " in shown.stdout) == (0, True)


def test_a_file_that_fails_for_good_is_no_success_until_it_is_sent(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, r2.environ())

    def refuse(operation: str, key: str) -> None:
        if operation == "put_object" and key.endswith("bad.png"):
            r2.fail(400, "SomethingNew", operation="put_object")

    r2.before = refuse
    daemon.start()
    try:
        daemon.wait_for(lambda: daemon.report() != {}, "its state file")
        (daemon.output / "bad.png").write_bytes(b"bad")
        (daemon.output / "good.png").write_bytes(b"good")
        daemon.wait_for(lambda: daemon.report().get("failing_files") == 1, "the failure")
        daemon.wait_for(lambda: b"good" in r2.contents().values(), "the other file")
        shown = run(daemon, "sync", "status")
        assert (shown.returncode, "failing   1 file;" in shown.stdout) == (1, True), shown.stdout
        assert "bad.png: the bucket refused the upload: SomethingNew" in shown.stdout
        r2.before = lambda operation, key: None
        r2.heal()
        daemon.wait_for(lambda: b"bad" in r2.contents().values(), "the file")
        daemon.wait_for(lambda: run(daemon, "sync", "status").returncode == 0, "a good state")
        assert "solved    the bucket refused the upload: SomethingNew" in run(daemon, "sync", "status").stdout
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def test_keys_are_rotated_as_the_docs_say(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, {**r2.environ(), "SYNC_DRAIN_SECONDS": "2"})
    daemon.start()
    try:
        daemon.wait_said("sync.reconciled")
        r2.access_key, r2.secret_key = "b" * 32, "c" * 64  # The old token is deleted too early.
        (daemon.output / "a.png").write_bytes(png(b"a"))
        daemon.wait_for(lambda: "keys are not accepted" in str(daemon.report().get("problem", "")), "the refusal")
        assert run(daemon, "sync", "status").returncode == 1
        assert run(daemon, "upload", "--test").returncode == 1
        new = {name: r2.environ()[name] for name in ("R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")}
        daemon.environ |= new
        tried = run(daemon, "upload", "--test")
        assert (tried.returncode, r2.objects) == (0, {}), tried.stderr
        daemon.stop()
        daemon.start()
        daemon.wait_for(lambda: list(r2.contents().values()) == [png(b"a")], "the output that waited")
        daemon.wait_for(lambda: run(daemon, "sync", "status").returncode == 0, "a good state")
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def test_prices_are_those_of_the_specification() -> None:
    prices = cost.read_prices()
    usage = {
        "2026-01": {"PutObject": 900_000, "UploadPart": 100_000, "HeadObject": 1_000_000, "AbortMultipartUpload": 9}
    }
    found = cost.price(10, 100 * 10**9, usage, prices)
    assert found.storage_dollars_month == pytest.approx(1.50)
    assert found.months[0].dollars == pytest.approx(4.50 + 0.36)


def test_the_prompts_id_is_kept(r2: R2, tmp_path: Path) -> None:
    with comfyui(tmp_path / "comfyui") as running:
        daemon = Sync(tmp_path, {**r2.environ(), "COMFYUI_PORT": str(running.port)})
        daemon.environ["COMFYUI_OUTPUT_DIR"] = str(running.output)
        daemon.start()
        try:
            daemon.wait_said("sync.started")
            words = ("workflows", "run", "smoke-image", "--dir", str(WORKFLOWS), "--url", running.url, "--json")
            done = run(daemon, *words)
            assert done.returncode == 0, done.stderr
            daemon.wait_for(lambda: len(r2.objects) == 2, "the output and its record")
            (stored,) = (one for key, one in r2.objects.items() if key.endswith(".png"))
            assert stored.metadata["prompt-id"] in done.stdout
            assert len(stored.metadata["prompt-id"]) > 8
            assert daemon.stop() == 0
        finally:
            daemon.kill()


def test_outputs_are_found_without_the_kernels_help(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, {**r2.environ(), "SYNC_WATCH": "false"}).start()
    try:
        daemon.wait_said("sync.reconciled")
        (daemon.output / "new/deep").mkdir(parents=True)
        (daemon.output / "new/deep/a.png").write_bytes(png(b"a"))
        daemon.wait_for(lambda: len(r2.objects) == 1, "the first")
        (daemon.output / "new/deep/b.png").write_bytes(png(b"b"))
        daemon.wait_for(lambda: len(r2.objects) == 2, "the second")
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def test_the_output_folder_may_vanish_and_come_back(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, r2.environ()).start()
    try:
        daemon.wait_said("sync.reconciled")
        daemon.output.rmdir()
        daemon.output.mkdir()
        (daemon.output / "a.png").write_bytes(png(b"a"))
        daemon.wait_for(lambda: len(r2.objects) == 1, "the file")
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def test_wrong_extensions_are_named(tmp_path: Path, r2: R2) -> None:
    done = run(Sync(tmp_path, {**r2.environ(), "SYNC_EXTENSIONS": "tar.gz"}), "sync")
    assert done.returncode == 2
    assert "SYNC_EXTENSIONS='tar.gz': must be file name extensions" in done.stderr
