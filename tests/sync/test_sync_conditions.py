"""Two pods, one name, large files: nothing is lost, whatever conditions the server heeds."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError

from fakes.r2 import R2
from fakes.s3 import S3
from hearmeman.settings import load
from hearmeman.sync.bucket import Bucket
from hearmeman.sync.journal import Journal
from hearmeman.sync.keys import utc_date
from hearmeman.sync.multipart import MULTIPART_ABOVE
from hearmeman.sync.tree import look
from hearmeman.sync.upload import Sent, Uploader
from support.waiting import PATIENCE

LARGE = MULTIPART_ABOVE + 1
KEY = f"o/{utc_date(0)}/large.mp4"


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


@pytest.fixture(scope="module")
def contents() -> list[bytes]:
    return [os.urandom(1000) * (LARGE // 1000 + 1) for _ in range(2)]


def pod(server: R2 | S3, folder: Path, content: bytes, name: str = "large.mp4") -> Uploader:
    """A pod whose output folder holds one file, changed in 1970."""
    root = folder / "output"
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)
    os.utime(root / name, ns=(1, 1))
    return Uploader(Bucket(load(server.environ()), 16), "o", root, Journal(folder / "sync.db"))


def send(uploader: Uploader, name: str = "large.mp4") -> Sent:
    seen = look(uploader.root, name)
    assert seen is not None
    return uploader.upload(name, seen)


def replaced(r2: R2) -> list[str]:
    """The keys of files at which something was overwritten, once for each time."""
    return sorted(key for key in r2.overwritten if ".hearmeman-test" not in key)


def test_what_the_bucket_heeds_is_found_out_once_and_leaves_nothing(
    r2: R2, tmp_path: Path, contents: list[bytes]
) -> None:
    first = pod(r2, tmp_path, contents[0])
    sent = send(first)
    assert sent.key == KEY
    assert first.bucket.heeds_conditions
    assert first.bucket.completes_conditionally
    assert r2.overwritten == []
    assert r2.uploads == {}
    assert set(r2.objects) == {KEY}
    (first.root / "second.mp4").write_bytes(contents[1])
    send(first, "second.mp4")
    probes = [request for request in r2.operations("complete_upload") if ".hearmeman-test" in request.key]
    assert len(probes) == 1
    conditions = [request.headers.get("if-none-match") for request in r2.operations("complete_upload")]
    assert conditions == ["*"] * 3


@pytest.mark.parametrize("refuses", [False, True])
def test_a_server_without_the_condition_at_the_end_keeps_the_place_by_a_small_object(
    r2: R2, tmp_path: Path, contents: list[bytes], refuses: bool
) -> None:
    r2.conditional_complete = False
    if refuses:
        r2.fail(501, "NotImplemented", operation="complete_upload")
    sent = send(pod(r2, tmp_path, contents[0]))
    assert sent.key == KEY
    assert r2.contents() == {KEY: contents[0]}
    assert r2.objects[KEY].metadata["sha256"] == sent.sha256
    assert r2.operations("complete_upload")[-1].headers.get("if-none-match") is None
    assert replaced(r2) == [KEY]  # Its own small object.
    assert r2.uploads == {}


@pytest.mark.parametrize("conditional", [True, False])
def test_two_pods_complete_one_name_at_the_same_moment(
    r2: R2, tmp_path: Path, contents: list[bytes], conditional: bool
) -> None:
    r2.conditional_complete = conditional
    pods = [pod(r2, tmp_path / str(number), content) for number, content in enumerate(contents)]
    # Both have looked, and found nothing there, before either goes on.
    together, met = threading.Barrier(2, timeout=PATIENCE), threading.local()

    def meet(operation: str, name: str) -> None:
        last = "complete_upload" if conditional else "put_object"
        if (operation, name) == (last, KEY) and not getattr(met, "done", False):
            met.done = True
            together.wait()

    r2.before = meet
    with ThreadPoolExecutor(2) as pool:
        sent = list(pool.map(send, pods))
    assert sorted(r2.contents().values()) == sorted(contents)
    assert KEY in {one.key for one in sent}
    assert {one.key: one.sha256 for one in sent} == {key: stored.sha256 for key, stored in r2.objects.items()}
    assert replaced(r2) == ([] if conditional else sorted(one.key for one in sent))  # Their own small objects.
    for one in pods:
        assert one.journal is not None
        for upload in one.journal.open_uploads():
            one.parts.give_up(upload)
    assert r2.uploads == {}


def test_a_place_that_was_kept_before_a_crash_is_taken_by_its_own_file_alone(
    r2: R2, tmp_path: Path, contents: list[bytes]
) -> None:
    r2.conditional_complete = False
    first, other = (pod(r2, tmp_path / str(number), content) for number, content in enumerate(contents))

    def cut(operation: str, name: str) -> None:
        if operation == "complete_upload" and name == KEY:
            r2.fail(operation="complete_upload")

    r2.before = cut
    with pytest.raises(BotoCoreError):
        send(first)
    assert len(r2.contents()[KEY]) < 1000
    r2.before = lambda operation, name: None
    theirs = send(other)
    assert theirs.key != KEY
    # As a new process that knows only its journal.
    assert first.journal is not None
    again = Uploader(Bucket(load(r2.environ()), 16), "o", first.root, Journal(first.journal.path))
    assert send(again).key == KEY
    assert r2.contents() == {KEY: contents[0], theirs.key: contents[1]}


def test_a_server_that_heeds_nothing_gets_large_files_too(tmp_path: Path, contents: list[bytes]) -> None:
    with S3() as server:  # rclone
        uploader = pod(server, tmp_path, contents[0])
        assert send(uploader).key == KEY
        assert (uploader.bucket.heeds_conditions, uploader.bucket.completes_conditionally) == (False, False)
        assert server.objects() == {KEY: contents[0]}


def test_a_file_that_a_pod_before_has_sent_is_not_read_again(r2: R2, tmp_path: Path) -> None:
    first = pod(r2, tmp_path, b"made by the first pod", "a.png")
    os.utime(first.root / "a.png", ns=(1_500_000_001, 1_500_000_001))
    sent = send(first, "a.png")
    # Other bytes of the same length and time: who finds them there did not look at them.
    (first.root / "a.png").write_bytes(b"MADE BY THE FIRST POD")
    os.utime(first.root / "a.png", ns=(1_500_000_001, 1_500_000_001))
    second = Uploader(Bucket(load(r2.environ()), 16), "o", first.root)
    seen = look(first.root, "a.png")
    assert seen is not None
    asked = len(r2.requests)
    found = second.upload("a.png", seen, maybe_there=True)
    assert (found.key, found.sha256, found.was_there) == (sent.key, sent.sha256, True)
    assert [request.operation for request in r2.requests[asked:]] == ["head_object"]
    # A time in whole seconds may be another file's: the bytes decide.
    for path in (first.root / "a.png", first.root / "b.png"):
        path.write_bytes(b"1")
        os.utime(path, ns=(10**9, 10**9))
    send(first, "b.png")
    (first.root / "b.png").write_bytes(b"2")
    os.utime(first.root / "b.png", ns=(10**9, 10**9))
    seen = look(first.root, "b.png")
    assert seen is not None
    assert not second.upload("b.png", seen, maybe_there=True).was_there
