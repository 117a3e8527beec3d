"""`hearmeman sync status` and `cost`, the prompt's id, the folder watched by looking alone, signs of a finished file."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from fakes.comfyui import comfyui
from fakes.r2 import R2
from hearmeman.sync import cost, report
from hearmeman.sync.finished import Sign, looks_whole, sign
from hearmeman.sync.prompts import Prompts
from support.repository import ROOT
from support.sync_process import Sync

WORKFLOWS = ROOT / "workflows"


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


def run(daemon: Sync, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hearmeman", *words]
    return subprocess.run(command, env=daemon.environ, capture_output=True, text=True, timeout=60, check=False)


def test_status_and_cost(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, r2.environ())
    before = run(daemon, "sync", "status")
    assert (before.returncode, "no sync has run here" in before.stderr) == (1, True)
    assert "is missing" in run(daemon, "sync", "cost").stderr
    daemon.start()
    try:
        (daemon.output / "a.png").write_bytes(bytes(1000))
        daemon.wait_for(lambda: "sync.uploaded" in daemon.log() and daemon.report().get("uploaded_files") == 1, "a.png")
        running = run(daemon, "sync", "status", "--json")
        assert running.returncode == 0, running.stderr
        facts = json.loads(running.stdout)
        assert facts["running"]
        assert (facts["backlog_files"], facts["uploaded_bytes"], facts["pid"]) == (0, 1000, daemon.process.pid)
        assert facts["last_success_key"].endswith("/a.png")
        assert "1 files, 1 kB since the start" in run(daemon, "sync", "status").stdout
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
    failing = [{"file": "a.png", "kind": "refused", "why": "the bucket said 400", "failures": 7, "since": time.time()}]
    facts = {"failing_files": 3, "failing": failing, "last_error": "the bucket said 400", "last_error_at": time.time()}
    (daemon.state / "sync.json").write_text(json.dumps({**facts, "problem": ""}))
    held = report.lock(daemon.state / "sync.lock")
    assert held is not None
    with held:
        shown = run(daemon, "sync", "status")
        assert shown.returncode == 1
        for words in ("failing   3 files", "a.png: the bucket said 400, 7 times, first just now", "and 2 more"):
            assert words in shown.stdout
        assert "solved" not in shown.stdout
        (daemon.state / "sync.json").write_text(json.dumps({**facts, "failing_files": 0, "failing": []}))
        shown = run(daemon, "sync", "status")
        assert (shown.returncode, "solved    the bucket said 400, just now" in shown.stdout) == (0, True)


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
            daemon.wait_for(lambda: len(r2.objects) == 1, "the output")
            (stored,) = r2.objects.values()
            assert stored.metadata["prompt-id"] in done.stdout
            assert len(stored.metadata["prompt-id"]) > 8
            assert daemon.stop() == 0
        finally:
            daemon.kill()


class _ComfyUI(BaseHTTPRequestHandler):
    """Answers as ComfyUI does while one prompt runs and another has ended."""

    def do_GET(self) -> None:
        ended = {"outputs": {"9": {"images": [{"filename": "a.png", "subfolder": "sub", "type": "output"}]}}}
        strange = {"outputs": {"9": {"gifs": [{"filename": "x.gif", "subfolder": "", "type": "output"}]}}}
        graph = {"1": {"inputs": {"filename_prefix": "video/clip"}}, "2": {"inputs": {"seed": 1}}}
        history = {"ended-1": ended, "h\u00e4": strange}
        queue = {"queue_running": [[0, "running-1", graph, {}, []]], "queue_pending": []}
        body = json.dumps(history if self.path.startswith("/history") else queue).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_whose_file_it_is() -> None:
    with HTTPServer(("127.0.0.1", 0), _ComfyUI) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        prompts = Prompts(f"http://127.0.0.1:{server.server_port}")
        now = time.time_ns()
        assert prompts.of("sub/a.png", 0) == "ended-1"
        assert prompts.of("video/clip_00001_.mp4", now) == "running-1"
        assert prompts.of("video/clip_00001_.mp4", now - 3600 * 10**9) == ""
        assert prompts.of("other.png", now) == ""
        assert prompts.of("x.gif", now) == ""
        server.shutdown()
    assert Prompts("http://127.0.0.1:9").of("a.png", now) == ""


def test_outputs_are_found_without_the_kernels_help(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, {**r2.environ(), "SYNC_WATCH": "false"}).start()
    try:
        daemon.wait_said("sync.reconciled")
        (daemon.output / "new/deep").mkdir(parents=True)
        (daemon.output / "new/deep/a.png").write_bytes(b"a")
        daemon.wait_for(lambda: len(r2.objects) == 1, "the first", 8)
        (daemon.output / "new/deep/b.png").write_bytes(b"b")
        daemon.wait_for(lambda: len(r2.objects) == 2, "the second", 8)
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def test_the_output_folder_may_vanish_and_come_back(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, r2.environ()).start()
    try:
        daemon.wait_said("sync.reconciled")
        daemon.output.rmdir()
        daemon.output.mkdir()
        (daemon.output / "a.png").write_bytes(b"a")
        daemon.wait_for(lambda: len(r2.objects) == 1, "the file")
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def test_wrong_extensions_are_named(tmp_path: Path, r2: R2) -> None:
    done = run(Sync(tmp_path, {**r2.environ(), "SYNC_EXTENSIONS": "tar.gz"}), "sync")
    assert done.returncode == 2
    assert "SYNC_EXTENSIONS='tar.gz' names tar.gz" in done.stderr


WEBM = b"\x1aE\xdf\xa3\x84" + bytes(4) + b"\x18S\x80g"


def box(kind: bytes, size: int) -> bytes:
    return struct.pack(">I4s", size + 8, kind) + bytes(size)


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"x" * 50 + b"\0\0\0\0IEND\xaeB`\x82", True),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 50, False),
        (b"RIFF" + struct.pack("<I", 12) + b"WEBP" + bytes(8), True),
        (b"RIFF" + struct.pack("<I", 13) + b"WAVE" + bytes(8), False),
        (b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + bytes(8), False),
        (b"RIFF" + struct.pack("<I", 11) + b"WAVE" + bytes(8), True),  # Padded to an even length.
        (b"RIFF" + struct.pack("<I", 8) + b"WAVE" + bytes(8), False),
        (WEBM + b"\x01\0\0\0\0\0\0\x10" + bytes(16), True),
        (WEBM + b"\x01\0\0\0\0\0\0\x11" + bytes(16), False),
        (WEBM + b"\x01\xff\xff\xff\xff\xff\xff\xff" + bytes(16), False),
        (WEBM[:7], False),
        (b"fLaC" + bytes(22) + b"\x01" * 16 + bytes(30), True),
        (b"fLaC" + bytes(22) + bytes(16) + bytes(30), False),
        (b"\xff\xd8\xff\xe0" + bytes(9) + b"\xff\xd9", True),
        (b"\xff\xd8\xff\xe0" + bytes(9), None),
        (box(b"ftyp", 8) + box(b"mdat", 100) + box(b"moov", 20), True),
        (box(b"ftyp", 8) + box(b"moov", 20) + struct.pack(">I4sQ", 1, b"mdat", 26) + bytes(10), True),
        (box(b"ftyp", 8) + box(b"moov", 20) + struct.pack(">I4s", 0, b"mdat") + bytes(99), True),
        (box(b"ftyp", 8) + box(b"mdat", 100), False),
        (box(b"ftyp", 8) + box(b"moov", 20) + box(b"mdat", 100)[:-1], False),
        (b"ID3 and so on", None),
        (b"", None),
    ],
)
def test_formats_that_say_where_they_end(tmp_path: Path, content: bytes, whole: bool | None) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert looks_whole(file.fileno(), len(content)) is whole


def test_a_file_open_for_writing_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    with path.open("wb") as file:
        file.write(b"x")
        file.flush()
        assert sign(path) is Sign.OPEN
    assert sign(path) is Sign.CLOSED
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    assert sign(tmp_path / "link") is Sign.NONE
