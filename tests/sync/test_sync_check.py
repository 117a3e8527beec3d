"""`hearmeman sync check` and `sync parts`: what is proven to be in the bucket, what is not, and what is half sent."""

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
from fakes.r2_rules import Upload
from fakes.s3 import S3
from hearmeman.settings import load
from hearmeman.sync.bucket import Bucket, Stored
from hearmeman.sync.journal import Journal, OpenUpload, journal_file
from hearmeman.sync.keys import object_key
from hearmeman.sync.proof import Digests, difference, digests
from support.as_pod import as_user, give_to_comfyui
from support.sync_process import PYTHON
from support.waiting import PATIENCE

MIB = 1024**2


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


@pytest.fixture
def pod(tmp_path: Path) -> Path:
    """A folder with an output folder that is ComfyUI's own."""
    output = tmp_path / "output"
    (output / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.mp4"):
        (output / name).write_text(name)
    (output / "notes.txt").write_text("no output")
    give_to_comfyui(output)
    return tmp_path


def run(server: R2 | S3, pod: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": PYTHON,
        "PYTHONDONTWRITEBYTECODE": "1",
        "COMFYUI_OUTPUT_DIR": str(pod / "output"),
        "STATE_DIR": str(pod / "state"),
        **server.environ(),
        **environ,
    }
    command = as_user([sys.executable, "-m", "hearmeman", *words])
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def key(pod: Path, name: str) -> str:
    return object_key("outputs", name, (pod / "output" / name).stat().st_mtime_ns)


def test_a_folder_that_is_in_the_bucket_is_the_same(r2: R2, pod: Path) -> None:
    assert run(r2, pod, "upload", str(pod / "output")).returncode == 0
    done = run(r2, pod, "sync", "check", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["same_files"], facts["same_bytes"]) == (3, 19)
    assert facts["missing"] == facts["differs"] == facts["unread"] == []
    assert "3 files, 19 B, are in s3://runpod/outputs by size and hash" in run(r2, pod, "sync", "check").stdout
    assert r2.operations("list_objects") == []


def test_every_difference_is_found(r2: R2, pod: Path) -> None:
    assert run(r2, pod, "upload", str(pod / "output")).returncode == 0
    r2.objects.pop(key(pod, "a.png"))
    r2.lay(key(pod, "b.png"), b"B.PNG")  # As many bytes, no sha256 noted: only the bucket's own hash shows it.
    r2.lay(key(pod, "sub/c.mp4"), b"cut")
    done = run(r2, pod, "sync", "check", "--json")
    assert done.returncode == 1, done.stderr
    facts = json.loads(done.stdout)
    assert [row["file"] for row in facts["missing"]] == ["a.png"]
    why = {row["file"]: row["why"] for row in facts["differs"]}
    assert why["b.png"] == "the object has other content (entity tag)"
    assert why["sub/c.mp4"] == "the object has 3 bytes, the file 9"
    shown = run(r2, pod, "sync", "check").stdout
    assert "1 file in the folder, not in the bucket:\n  a.png" in shown
    by_size = json.loads(run(r2, pod, "sync", "check", "--size-only", "--json").stdout)
    assert [row["file"] for row in by_size["differs"]] == ["sub/c.mp4"]


def test_a_file_beside_another_of_its_name_is_found_under_its_hash(r2: R2, pod: Path) -> None:
    r2.lay(key(pod, "a.png"), b"another pod's")
    assert run(r2, pod, "upload", str(pod / "output")).returncode == 0
    assert run(r2, pod, "sync", "check").returncode == 0


def test_a_token_that_may_not_read_is_no_missing_file(r2: R2, pod: Path) -> None:
    r2.may_read = False
    done = run(r2, pod, "sync", "check")
    assert (done.returncode, "object read and write" in done.stderr) == (1, True), done.stdout
    assert done.stderr.count("\n") == 1


def test_other_servers_hashes_are_understood(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / "large.mp4").write_bytes(os.urandom(MIB) * 101)
    (output / "small.png").write_bytes(b"small")
    give_to_comfyui(output)
    with S3() as server:
        assert run(server, tmp_path, "upload", str(output)).returncode == 0
        done = run(server, tmp_path, "sync", "check")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "nothing is half sent" in run(server, tmp_path, "sync", "parts").stdout


@pytest.mark.parametrize("size", [0, 1, 50 * MIB, 100 * MIB, 100 * MIB + 1, 150 * MIB])
def test_a_files_entity_tag_is_the_buckets(r2: R2, tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.mp4"
    with path.open("wb") as file:
        file.write(os.urandom(min(size, MIB)))
        file.truncate(size)
    assert run(r2, tmp_path, "upload", str(path)).returncode == 0
    (stored,) = r2.objects.values()
    with path.open("rb") as opened:
        found = digests(opened.fileno(), size)
    assert (found.size, found.sha256, found.etag) == (size, stored.sha256, stored.etag)


def test_what_proves_an_object() -> None:
    local = Digests(3, "s" * 64, "a" * 32)
    assert difference(Stored(3, "a" * 32, ""), local) == ""
    assert difference(Stored(3, "b" * 32, "s" * 64), local) != ""
    assert difference(Stored(3, "a" * 32, "t" * 64), local) != ""
    assert difference(Stored(4, "a" * 32, "s" * 64), local) != ""
    # Sent in other parts, or stored encrypted: the noted hash decides, and without one nothing is proven.
    assert difference(Stored(3, f"{'b' * 32}-7", "s" * 64), local) == ""
    assert difference(Stored(3, f"{'b' * 32}-7", ""), local) != ""
    assert difference(Stored(3, f"{'b' * 32}-2", "s" * 64), Digests(3, "s" * 64, f"{'a' * 32}-2")) != ""


def begin(bucket: Bucket, r2: R2, name: str, hours: float) -> str:
    upload_id = bucket.begin(name, {})
    r2.uploads[upload_id].at = time.time() - hours * 3600
    return upload_id


def test_half_sent_files_are_listed_and_ended_unless_this_pod_goes_on_with_them(r2: R2, pod: Path) -> None:
    bucket = Bucket(load(r2.environ()), 1)
    old, new, ours, elsewhere = (
        begin(bucket, r2, name, hours)
        for name, hours in (("outputs/o.mp4", 30), ("outputs/n.mp4", 1), ("outputs/u.mp4", 30), ("models/m", 30))
    )
    bucket.client.upload_part(Bucket="runpod", Key="outputs/o.mp4", UploadId=old, PartNumber=1, Body=bytes(1000))
    (pod / "state").mkdir()
    journal = Journal(journal_file(pod / "state", r2.url, "runpod"))
    journal.begin(OpenUpload("u.mp4", 1, "s", "outputs/u.mp4", ours, 1, time.time()))
    journal.close()
    listed = run(r2, pod, "sync", "parts")
    assert listed.returncode == 0, listed.stderr
    assert "models/m" not in listed.stdout
    for words in ("outputs/o.mp4", "1 part ", "this pod is resuming it: u.mp4", "--abort"):
        assert words in listed.stdout
    assert set(r2.uploads) == {old, new, ours, elsewhere}
    done = json.loads(run(r2, pod, "sync", "parts", "--abort", "--json").stdout)
    assert {row["key"]: row["aborted"] for row in done["open"]} == {
        "outputs/o.mp4": True,
        "outputs/n.mp4": False,
        "outputs/u.mp4": False,
    }
    assert next(row["bytes"] for row in done["open"] if row["key"] == "outputs/o.mp4") == 1000
    assert set(r2.uploads) == {new, ours, elsewhere}
    assert run(r2, pod, "sync", "parts", "--all", "--abort", "--older-than", "0").returncode == 0
    assert set(r2.uploads) == {ours}
    assert "nothing is half sent" in run(r2, pod, "sync", "parts", R2_PREFIX="none").stdout


def test_many_half_sent_files_are_all_found(r2: R2, pod: Path) -> None:
    for number in range(1005):  # More than one answer lists.
        r2.uploads[f"{number:032x}"] = Upload(f"outputs/{number % 3}.mp4", "", {}, at=time.time() - 30 * 3600)
    done = run(r2, pod, "sync", "parts", "--json")
    assert len(json.loads(done.stdout)["open"]) == 1005, done.stderr


def test_an_estimate_needs_no_bucket(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": PYTHON}
    command = [sys.executable, "-m", "hearmeman", "sync", "cost", "--stored-gb", "500", "--uploads", "1200000"]
    done = subprocess.run([*command, "--json"], env=env, capture_output=True, text=True, timeout=PATIENCE, check=True)
    facts = json.loads(done.stdout)
    assert (facts["storage_dollars"], facts["uploads_dollars"]) == pytest.approx((7.5, 5.4))
    assert facts["dollars"] == pytest.approx(490 * 0.015 + 0.2 * 4.5)
    shown = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    assert "$8.25 a month, after what each account has free" in shown
    wrong = subprocess.run([*command, "--uploads", "-1"], env=env, capture_output=True, timeout=PATIENCE, check=False)
    assert wrong.returncode == 2
