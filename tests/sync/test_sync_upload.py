"""`hearmeman upload`: keys, the test of a bucket, failures in one sentence, exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.r2 import R2
from fakes.s3 import S3
from hearmeman.sync.keys import utc_date
from support.as_pod import as_user, give_to_comfyui
from support.sync_process import PYTHON
from support.waiting import PATIENCE, wait_for


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with S3() as s3:
        yield s3


def upload(server: S3 | R2, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command, env = upload_command(server, *words, **environ)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)


def upload_command(server: S3 | R2, *words: str, **environ: str) -> tuple[list[str], dict[str, str]]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": PYTHON, "PYTHONDONTWRITEBYTECODE": "1", **server.environ()}
    return as_user([sys.executable, "-m", "hearmeman", "upload", *words]), {**env, **environ}


def test_files_and_prefix(server: S3, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.wav"):
        (tmp_path / name).write_text(name)
    done = upload(server, "--json", "--prefix", "videos", str(tmp_path / "a.mp4"), str(tmp_path / "b.wav"))
    assert done.returncode == 0, done.stderr
    day = utc_date((tmp_path / "a.mp4").stat().st_mtime_ns)
    assert [row["key"] for row in json.loads(done.stdout)] == [f"videos/{day}/a.mp4", f"videos/{day}/b.wav"]
    assert server.objects()[f"videos/{day}/b.wav"] == b"b.wav"
    again = upload(server, "--prefix", "videos", str(tmp_path / "a.mp4"))
    assert "(already there)" in again.stdout


def test_an_output_gets_the_daemons_key(server: S3, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/x.png").write_bytes(b"x")
    done = upload(server, str(tmp_path / "sub/x.png"), COMFYUI_OUTPUT_DIR=str(tmp_path))
    assert f"outputs/{utc_date((tmp_path / 'sub/x.png').stat().st_mtime_ns)}/sub/x.png" in done.stdout


def test_the_bucket_is_tested(server: S3) -> None:
    done = upload(server, "--test", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["seconds"]) == {"put", "head", "get", "delete"}
    assert not any(".hearmeman-test" in key for key in server.objects())


def test_a_test_object_that_may_not_be_removed_is_named() -> None:
    with R2() as r2:
        r2.may_delete = False
        done = upload(r2, "--test")
        (key,) = r2.objects
        assert (done.returncode, f"stays, 64 bytes: {key}" in done.stdout) == (0, True), done.stdout


def test_a_prefix_that_leaves_its_folder_is_refused(server: S3, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    before = server.objects()
    for done in (
        upload(server, "--prefix", "../x", str(tmp_path / "a.png")),
        upload(server, "--prefix", "/", str(tmp_path / "a.png")),
        upload(server, str(tmp_path / "a.png"), R2_PREFIX="a/../b"),
    ):
        assert done.returncode == 2, done.stdout
        assert "prefix" in done.stderr.lower()
    assert server.objects() == before


def test_a_folder_gives_its_outputs(server: S3, tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    (shots / "day1").mkdir(parents=True)
    for name in ("a.png", "day1/b.MP4", "notes.txt", ".hidden.png", "c.tmp.png"):
        (shots / name).write_text(name)
    (shots / "link.png").symlink_to("a.png")
    give_to_comfyui(shots)
    done = upload(server, "--prefix", "folder", str(shots))
    assert done.returncode == 0, done.stderr
    day = utc_date((shots / "a.png").stat().st_mtime_ns)
    found = {key for key in server.objects() if key.startswith("folder/")}
    assert found == {f"folder/{day}/shots/a.png", f"folder/{day}/shots/day1/b.MP4"}
    # The output folder itself gives what the daemon would upload, under the daemon's keys.
    done = upload(server, "--prefix", "all", str(shots), COMFYUI_OUTPUT_DIR=str(shots))
    assert done.returncode == 0, done.stderr
    assert {key for key in server.objects() if key.startswith("all/")} == {f"all/{day}/a.png", f"all/{day}/day1/b.MP4"}
    (tmp_path / "empty").mkdir()
    done = upload(server, str(tmp_path / "empty"))
    assert (done.returncode, "holds no file with one of the extensions" in done.stderr) == (2, True)


def test_a_signal_leaves_no_half_sent_file_in_the_bucket(tmp_path: Path) -> None:
    with (tmp_path / "large.mp4").open("wb") as file:
        file.truncate(110 * 1024**2)
    with R2(keep=False) as r2:
        command, env = upload_command(r2, str(tmp_path / "large.mp4"), SYNC_BANDWIDTH="1")
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
            try:
                wait_for(lambda: r2.uploads, "its beginning")
                process.send_signal(signal.SIGTERM)
                _, told = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
        assert (process.returncode, "stopped by SIGTERM" in told) == (128 + signal.SIGTERM, True), told
        assert r2.uploads == {}
        assert r2.objects == {}


AT_THE_WORST_MOMENT = """
import os, signal, sys, threading
from concurrent.futures import _base
from hearmeman.cli import main

struck = []

def trace(frame, event, argument):
    if frame.f_code is _base._AcquireFutures.__exit__.__code__:
        return strike

def strike(frame, event, argument):
    held = frame.f_locals.get("future")
    if held is not None and not struck:
        struck.append(True)
        os.kill(os.getpid(), signal.SIGTERM)
    return strike

threading.settrace(trace)
sys.settrace(trace)
sys.exit(main(["upload", *sys.argv[1:]]))
"""
"""Signals itself while Python holds the locks of every part that waits to be sent."""


def test_a_signal_while_locks_are_held_ends_it_too(tmp_path: Path) -> None:
    with (tmp_path / "large.mp4").open("wb") as file:
        file.truncate(110 * 1024**2)
    with R2(latency=0.1, keep=False) as r2:
        _, env = upload_command(r2)
        command = as_user([sys.executable, "-c", AT_THE_WORST_MOMENT, str(tmp_path / "large.mp4")])
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert (done.returncode, "stopped by SIGTERM" in done.stderr) == (128 + signal.SIGTERM, True), done.stderr
        assert (r2.uploads, r2.objects) == ({}, {})


@pytest.mark.parametrize("stage", ["hashed", "tried again"])
def test_a_signal_is_heard_before_anything_is_sent_and_between_tries(tmp_path: Path, stage: str) -> None:
    large = tmp_path / "large.mp4"
    with large.open("wb") as file:
        file.truncate(40 * 1024**3 if stage == "hashed" else 1)
    with R2() as r2:
        r2.fail(503)
        command, env = upload_command(r2, str(large))
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
            try:
                wait_for(lambda: _has_open(process.pid, large) if stage == "hashed" else r2.requests, "that stage")
                process.send_signal(signal.SIGINT)
                _, told = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
        assert (process.returncode, "stopped by SIGINT" in told) == (128 + signal.SIGINT, True), told
        assert len(r2.requests) == (stage == "tried again")


def _has_open(pid: int, path: Path) -> bool:
    with contextlib.suppress(OSError):  # It is becoming another user.
        return any(link.readlink() == path for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("R2_SECRET_ACCESS_KEY", "wrong", "the keys are not accepted"),
        ("R2_ACCESS_KEY_ID", "wrong-access-key", "the keys are not accepted"),
        ("R2_BUCKET", "nowhere", "bucket nowhere does not exist"),
        ("R2_ENDPOINT", "http://127.0.0.1:9", "cannot be reached"),
        ("R2_ENDPOINT", "http://no-such-host.invalid", "is not known"),
    ],
)
def test_a_failure_is_one_sentence(server: S3, variable: str, value: str, sentence: str) -> None:
    done = upload(server, "--test", **{variable: value})
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert server.secret_key not in done.stderr


def test_an_endpoint_that_ends_with_the_bucket_puts_objects_in_their_place(server: S3, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    done = upload(server, "--prefix", "pasted", str(tmp_path / "a.png"), R2_ENDPOINT=f"{server.url}/{server.bucket}")
    assert done.returncode == 0, done.stderr
    assert f"pasted/{utc_date((tmp_path / 'a.png').stat().st_mtime_ns)}/a.png" in server.objects()


def test_what_another_tool_is_configured_with_has_no_say(server: S3, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile x\nnot a config")
    others = {
        "AWS_PROFILE": "nobody",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "config"),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "WHEN_SUPPORTED",
        "AWS_RETRY_MODE": "nonsense",
        "AWS_MAX_ATTEMPTS": "x",
        "AWS_CA_BUNDLE": str(tmp_path / "none.pem"),
        "AWS_DEFAULT_REGION": "mars-1",
    }
    done = upload(server, "--test", **others)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_a_file_that_goes_while_others_are_sent_stops_nothing(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_text(name)
    with R2() as r2:

        def delete(operation: str, key: str) -> None:
            if operation == "put_object" and key.endswith("a.png"):
                (tmp_path / "b.png").unlink(missing_ok=True)

        r2.before = delete
        done = upload(r2, *(str(tmp_path / name) for name in ("a.png", "b.png", "c.png")))
        assert (done.returncode, "b.png: it is gone" in done.stderr) == (3, True), done.stderr
        assert sorted(r2.contents().values()) == [b"a.png", b"c.png"]


def test_a_server_without_tls(server: S3) -> None:
    done = upload(server, "--test", R2_ENDPOINT=server.url.replace("http:", "https:"))
    assert done.returncode == 1
    assert "no secure connection to https://127.0.0.1" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_token_without_some_rights() -> None:
    with R2() as r2:
        assert upload(r2, "--test").returncode == 0
        assert r2.operations("list_objects") == []
        r2.may_read = False
        done = upload(r2, "--test")
        assert (done.returncode, "head: " in done.stderr, "object read and write" in done.stderr) == (1, True, True)
        r2.may_write = False
        done = upload(r2, "--test")
        assert (done.returncode, "put: the keys may not write" in done.stderr) == (1, True)


def test_a_large_file_and_a_hiccup(tmp_path: Path) -> None:
    content = os.urandom(1024) * (101 * 1024)
    (tmp_path / "large.mp4").write_bytes(content)
    (tmp_path / "small.png").write_bytes(b"small")
    with R2() as r2:
        r2.fail(503, "ServiceUnavailable", operation="upload_part")
        r2.fail(operation="put_object")
        done = upload(r2, "--json", str(tmp_path / "large.mp4"), str(tmp_path / "small.png"))
        assert done.returncode == 0, done.stderr
        assert sorted(r2.contents().values()) == sorted([content, b"small"])
        assert r2.uploads == {}


def test_some_files_fail(tmp_path: Path) -> None:
    for name in ("bad.png", "good.png"):
        (tmp_path / name).write_text(name)
    with R2() as r2:

        def refuse(operation: str, key: str) -> None:
            if operation == "put_object" and "bad" in key:
                r2.fail(400, "EntityTooLarge", operation="put_object", key="bad.png")

        r2.before = refuse
        done = upload(r2, "--json", str(tmp_path / "bad.png"), str(tmp_path / "good.png"))
        assert done.returncode == 3
        assert "1 of 2 files were not uploaded" in done.stderr
        assert "bad.png: the bucket refuses a file of this size" in done.stderr
        assert [("error" in row, "key" in row) for row in json.loads(done.stdout)] == [(True, False), (False, True)]


def test_missing_files_are_a_usage_error(server: S3, tmp_path: Path) -> None:
    before = server.objects()
    (tmp_path / "there.png").write_bytes(b"there")
    done = upload(server, str(tmp_path / "there.png"), str(tmp_path / "gone.png"))
    assert done.returncode == 2
    assert "gone.png" in done.stderr
    assert server.objects() == before
