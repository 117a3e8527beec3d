"""`hearmeman upload`: keys, the test of a bucket, failures in one sentence, exit codes."""

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
from fakes.s3 import S3
from hearmeman.sync.keys import utc_date
from support.sync_process import PYTHON


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with S3() as s3:
        yield s3


def upload(server: S3 | R2, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": PYTHON, "PYTHONDONTWRITEBYTECODE": "1", **server.environ()}
    command = [sys.executable, "-m", "hearmeman", "upload", *words]
    return subprocess.run(command, env={**env, **environ}, capture_output=True, text=True, timeout=60, check=False)


def test_files_and_prefix(server: S3, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.wav"):
        (tmp_path / name).write_text(name)
    done = upload(server, "--json", "--prefix", "videos", str(tmp_path / "a.mp4"), str(tmp_path / "b.wav"))
    assert done.returncode == 0, done.stderr
    day = utc_date(time.time_ns())
    assert [row["key"] for row in json.loads(done.stdout)] == [f"videos/{day}/a.mp4", f"videos/{day}/b.wav"]
    assert server.objects()[f"videos/{day}/b.wav"] == b"b.wav"
    again = upload(server, "--prefix", "videos", str(tmp_path / "a.mp4"))
    assert "(was there)" in again.stdout


def test_an_output_gets_the_daemons_key(server: S3, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/x.png").write_bytes(b"x")
    done = upload(server, str(tmp_path / "sub/x.png"), COMFYUI_OUTPUT_DIR=str(tmp_path))
    assert f"outputs/{utc_date(time.time_ns())}/sub/x.png" in done.stdout


def test_the_bucket_is_tested(server: S3) -> None:
    done = upload(server, "--test", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["seconds"]) == {"put", "head", "get"}


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
                r2.fail(400, "EntityTooLarge", operation="put_object")

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
