"""Failures are told apart, said once in a plain sentence, and heal without a restart."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from fakes.r2 import R2
from hearmeman.settings import load
from hearmeman.sync import client
from hearmeman.sync.bucket import Bucket
from hearmeman.sync.failures import classify
from hearmeman.sync.journal import Journal, Record
from hearmeman.sync.patience import FIRST_PAUSE, LONGEST_PAUSE, pause_after
from support.outputs import png
from support.sync_process import PYTHON, Sync, as_sync_user


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


FAULTS = [
    (401, "Unauthorized", "keys", "check R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY"),
    (400, "InvalidArgument", "keys", "check R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY"),
    (400, "ExpiredToken", "keys", "check R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY"),
    (403, "SignatureDoesNotMatch", "keys", "check R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY"),
    (403, "AccessDenied", "forbidden", "give the token object read and write"),
    (404, "NoSuchBucket", "no-bucket", "set R2_BUCKET"),
    (403, "RequestTimeTooSkewed", "clock", "set the clock"),
    (429, "TooManyRequests", "slow-down", "waiting longer"),
    (500, "InternalError", "server", "an internal error"),
    (502, "", "server", "an internal error"),
    (409, "OperationAborted", "server", "an internal error"),
    (507, "InsufficientStorage", "full", "make room"),
    (400, "RequestTimeout", "connection", "broke"),
    (0, "", "connection", "broke"),
]


def test_every_failure_is_said_once_and_heals(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, r2.environ()).start()
    try:
        for number, (status, code, kind, fix) in enumerate(FAULTS):
            said = len(daemon.log())
            fault = r2.fail(status, code, times=1_000_000, operation="put_object")
            for name in ("a", "b"):
                (daemon.output / f"{number}{name}.png").write_bytes(png(b"%d%s" % (number, name.encode())))
            daemon.wait_for(lambda said=said: "sync.failed" in daemon.log()[said:], f"{status} {code}")  # type: ignore[misc]
            daemon.wait_for(lambda fault=fault: fault.times < 999_999, "several tries")  # type: ignore[misc]
            r2.heal()
            daemon.wait_for(lambda number=number: len(r2.objects) == 2 * number + 2, f"both after {status} {code}")  # type: ignore[misc]
            daemon.wait_for(lambda said=said: "sync.healed" in daemon.log()[said:], "healed")  # type: ignore[misc]
            lines = [line for line in daemon.log()[said:].splitlines() if "sync.failed" in line]
            assert len(lines) == 1, lines
            assert f"kind={kind}" in lines[0]
            assert fix in lines[0]
        assert daemon.stop() == 0
        assert r2.secret_key not in daemon.log()
        assert r2.access_key not in daemon.log()
        assert r2.overwritten == []
    finally:
        daemon.kill()


def test_a_clock_that_is_wrong(r2: R2, tmp_path: Path) -> None:
    r2.clock = lambda: time.time() + 3600
    daemon = Sync(tmp_path, r2.environ()).start()
    try:
        (daemon.output / "a.png").write_bytes(png(b"a"))
        daemon.wait_said("kind=clock")
        r2.clock = time.time
        daemon.wait_for(lambda: len(r2.objects) == 1, "the file")
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def test_a_file_that_the_bucket_refuses_does_not_hold_the_others_up(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, {**r2.environ(), "SYNC_DRAIN_SECONDS": "1"}).start()
    r2.fail(400, "EntityTooLarge", operation="put_object", key="bad.png", times=1_000_000)
    try:
        (daemon.output / "bad.png").write_bytes(png(b"bad"))
        daemon.wait_said("kind=too-large")
        (daemon.output / "good.png").write_bytes(png(b"good"))
        daemon.wait_for(lambda: png(b"good") in r2.contents().values(), "the good file")
        assert daemon.stop() == 3
        assert "sync.left file=bad.png" in daemon.log()
        assert daemon.report()["left"] == ["bad.png"]
    finally:
        daemon.kill()


def test_a_file_whose_connection_always_breaks_does_not_hold_the_others_up(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, {**r2.environ(), "SYNC_DRAIN_SECONDS": "1"}).start()
    r2.fail(key="bad.png", times=1_000_000)
    try:
        daemon.wait_said("sync.started")
        for number in range(20):
            (daemon.output / f"{number}.png").write_bytes(png(b"%d" % number))
        # The newest, so it is tried first, again and again.
        (daemon.output / "bad.png").write_bytes(png(b"bad"))
        daemon.wait_for(lambda: len(r2.objects) == 20, "the others")
        assert daemon.stop() == 3
        assert daemon.report()["left"] == ["bad.png"]
    finally:
        daemon.kill()


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (403, "AccessDenied"), (400, "InvalidRequest")])
def test_one_file_that_always_fails_is_said_once_and_named_until_it_is_sent(
    r2: R2, tmp_path: Path, status: int, code: str
) -> None:
    daemon = Sync(tmp_path, r2.environ()).start()
    r2.fail(status, code, key="bad.png", times=1_000_000)
    try:
        daemon.wait_said("sync.reconciled")
        (daemon.output / "bad.png").write_bytes(png(b"bad"))
        daemon.wait_said("sync.failed")

        def tries() -> int:
            return len([request for request in r2.requests if request.key.endswith("bad.png")])

        # Others come and go meanwhile, and each of their successes ends what looks like an outage.
        for number in range(12):
            (daemon.output / f"{number}.png").write_bytes(png(number))
            daemon.wait_for(lambda n=number: len(r2.objects) == n + 1, "the others")  # type: ignore[misc]
        daemon.wait_for(lambda: tries() >= 5, "five tries")
        assert daemon.log().count("sync.failed") == 1, daemon.log()
        assert daemon.log().count("sync.healed") <= 1
        report = daemon.report()
        assert (report["failing_files"], report["last_error_file"], report["problem"]) == (1, "bad.png", "")
        (named,) = report["failing"]
        assert (named["file"], named["failures"] >= 3, named["why"]) == ("bad.png", True, report["last_error"])
        assert report["last_error_fixed_at"] is None
        r2.heal()
        (daemon.output / "bad.png").touch()  # A change is tried at once.
        daemon.wait_for(lambda: daemon.report().get("last_error_fixed_at") is not None, "success")
        assert daemon.report()["failing_files"] == 0
        assert len(r2.objects) == 13
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def test_every_failing_file_is_counted_and_some_are_named(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, {**r2.environ(), "SYNC_DRAIN_SECONDS": "0.5"})
    r2.fail(400, "InvalidRequest", operation="put_object", times=1_000_000)
    for number in range(30):
        (daemon.output / f"{number:02}.png").write_bytes(png(number))
    daemon.start()
    try:
        daemon.wait_for(lambda: daemon.report().get("failing_files") == 30, "all thirty")
        assert [one["file"] for one in daemon.report()["failing"]] == [f"{number:02}.png" for number in range(20)]
        assert daemon.report()["uploaded_files"] == 0
        assert daemon.stop() == 3
    finally:
        daemon.kill()


def limit_file_size(daemon: Sync, size: str) -> None:
    # As the daemon's own user: another one needs a capability for it.
    command = as_sync_user(["prlimit", "--pid", str(daemon.process.pid), f"--fsize={size}:unlimited"])
    subprocess.run(command, check=True)


def test_a_journal_on_a_full_disk(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, r2.environ()).start()
    try:
        daemon.wait_said("sync.started")
        # No file of the daemon's can grow beyond 1,000 bytes: its journal cannot be written.
        limit_file_size(daemon, "1000")
        for number in range(3):
            (daemon.output / f"{number}.png").write_bytes(png(b"%d" % number))
        daemon.wait_for(lambda: len(r2.objects) == 3, "uploads go on")
        daemon.wait_said("sync.journal_unwritable")
        limit_file_size(daemon, "unlimited")
        daemon.wait_said("of=sync.journal_unwritable")
        assert daemon.log().count(" sync.journal_unwritable ") == 1
        assert daemon.stop() == 0
        # What was kept in memory has been written: a new start sends and asks nothing.
        asked = len(r2.requests)
        daemon.start()
        daemon.wait_for(lambda: "journaled=3" in daemon.log(), "the journal")
        assert daemon.stop() == 0
        assert len(r2.requests) == asked
    finally:
        daemon.kill()


def test_a_damaged_journal_is_put_aside(r2: R2, tmp_path: Path) -> None:
    daemon = Sync(tmp_path, r2.environ()).start()
    try:
        (daemon.output / "a.png").write_bytes(png(b"a"))
        daemon.wait_said("sync.uploaded")
        assert daemon.stop() == 0
        journal = next(daemon.state.glob("sync-*.db"))
        journal.write_bytes(b"no database" * 1000)
        daemon.start()
        daemon.wait_said("sync.already_there")
        assert daemon.stop() == 0
        assert "sync.journal_damaged" in daemon.log()
        assert len(r2.objects) == 1
    finally:
        daemon.kill()


@pytest.mark.parametrize("damaged", [slice(0, 4096), slice(8192, 16384), slice(20_000, 200_000)])
def test_damage_anywhere_in_the_journal_is_noticed(tmp_path: Path, damaged: slice) -> None:
    path = tmp_path / "sync.db"
    journal = Journal(path)
    journal.record([Record(f"{number}.png", 1, 2, "0" * 64, "key", 3.0) for number in range(2000)], {})
    journal.close()
    content = bytearray(path.read_bytes())
    content[damaged] = b"\xaa" * len(content[damaged])
    path.write_bytes(content)
    again = Journal(path)
    assert again.done() == {}
    assert path.with_name("sync.db.damaged").read_bytes() == content
    again.record([Record("a.png", 1, 2, "0" * 64, "key", 3.0)], {})
    again.close()
    assert Journal(path).done() == {"a.png": (1, 2)}


def test_a_connection_that_stalls(r2: R2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.3)
    bucket = Bucket(load(r2.environ()), 1)
    r2.fail(500, seconds=20)
    with pytest.raises(Exception) as caught:
        bucket.put("a", b"a", {})
    assert classify(caught.value, r2.url, "runpod").kind == "connection"


def test_a_server_that_never_reads(monkeypatch: pytest.MonkeyPatch, r2: R2) -> None:
    monkeypatch.setattr(client, "STALL_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        bucket = Bucket(load({**r2.environ(), "R2_ENDPOINT": url}), 1)
        with pytest.raises(Exception) as caught:
            bucket.put("a", bytes(64 * 1024**2), {})
    assert classify(caught.value, url, "runpod").kind in ("connection", "unreachable")


class _Website(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        page = b"<html>Welcome</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    do_HEAD = do_POST = do_PUT  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_a_website_is_no_bucket(r2: R2, tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), _Website) as website:
        threading.Thread(target=website.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{website.server_port}"
        daemon = Sync(tmp_path, {**r2.environ(), "R2_ENDPOINT": url, "SYNC_DRAIN_SECONDS": "0.5"}).start()
        try:
            (daemon.output / "a.png").write_bytes(png(b"a"))
            daemon.wait_said("kind=no-s3")
            assert daemon.stop() == 3
        finally:
            daemon.kill()
            website.shutdown()


def test_pauses_grow_to_a_minute_and_are_short_at_the_stop() -> None:
    pauses = [pause_after(attempts) for attempts in range(1, 2000)]
    assert pauses[0] == FIRST_PAUSE
    assert pauses == sorted(pauses)
    assert max(pauses) == LONGEST_PAUSE
    assert pause_after(10, stopping=True) <= 1


CLOSE_AT_WORK = """
import sys, threading, time
from pathlib import Path
from hearmeman.sync.journal import Journal, Record

for take in range(20):
    journal, over = Journal(Path(sys.argv[1]) / f"{take}.db"), threading.Event()

    def work(journal=journal, over=over):
        while not over.is_set():
            journal.record([Record("a", 1, 1, "hash", "key", 1.0)], {})
            journal.flush()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    journal.close()
    over.set()
    for thread in threads:
        thread.join()
"""


def test_a_journal_is_closed_while_threads_are_at_work_in_it(tmp_path: Path) -> None:
    # In a process of its own: SQLite's answer to a connection that is closed under it is SIGSEGV.
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": PYTHON}
    done = subprocess.run([sys.executable, "-c", CLOSE_AT_WORK, str(tmp_path)], env=environ, capture_output=True)
    assert done.returncode == 0, done.stderr
