"""One file into an R2 that enforces its rules: the wire, keys that are taken, parts, resumption, torn files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from fakes.r2 import R2
from hearmeman.settings import load
from hearmeman.sync.bucket import AllKeysTakenError, Bucket, UploadLostError
from hearmeman.sync.failures import classify
from hearmeman.sync.journal import Journal
from hearmeman.sync.keys import utc_date
from hearmeman.sync.multipart import MULTIPART_ABOVE, PART_SIZE, FileChangedError, part_size
from hearmeman.sync.tree import look
from hearmeman.sync.upload import Sent, Uploader

LARGE = MULTIPART_ABOVE + 1


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


@pytest.fixture
def uploader(r2: R2, tmp_path: Path) -> Uploader:
    """An uploader that knows already that the bucket heeds conditions when an upload is completed."""
    root = tmp_path / "output"
    root.mkdir()
    bucket = Bucket(load(r2.environ()), 16)
    bucket.completes_conditionally = True
    return Uploader(bucket, "o", root, Journal(tmp_path / "sync.db"), lambda path, mtime_ns: "prompt-7")


def send(uploader: Uploader, name: str, content: bytes | None = None) -> Sent:
    """Write the file unless it stays as it is, and upload it."""
    if content is not None:
        (uploader.root / name).write_bytes(content)
    seen = look(uploader.root, name)
    assert seen is not None
    return uploader.upload(name, seen)


def key(uploader: Uploader, name: str) -> str:
    return f"o/{utc_date((uploader.root / name).stat().st_mtime_ns)}/{name}"


@pytest.fixture(scope="module")
def large() -> bytes:
    return os.urandom(1000) * (LARGE // 1000 + 1)


def test_the_wire(r2: R2, uploader: Uploader, large: bytes) -> None:
    send(uploader, "a.png", b"a")
    send(uploader, "middle.mp4", large[: 9 * 1024**2])
    send(uploader, "large.mp4", large[:LARGE])
    assert {request.operation for request in r2.requests} == {
        "head_object",
        "put_object",
        "create_upload",
        "upload_part",
        "complete_upload",
    }
    for request in r2.requests:
        names = set(request.headers)
        assert not [n for n in names if n.startswith(("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer"))]
        assert not names & {"transfer-encoding", "expect"}
        assert "/auto/s3/aws4_request" in request.headers["authorization"]
        assert request.headers["host"] == f"127.0.0.1:{r2.port}"  # Path style.
        assert r2.secret_key not in str(request.headers)
    puts = {request.key: request.headers for request in r2.operations("put_object")}
    assert all(headers["if-none-match"] == "*" for headers in puts.values())
    assert "content-md5" in puts[key(uploader, "middle.mp4")]
    stored = r2.objects[key(uploader, "a.png")]
    assert stored.content_type == "image/png"
    seconds, nanoseconds = divmod((uploader.root / "a.png").stat().st_mtime_ns, 10**9)
    mtime = f"{seconds}.{nanoseconds:09}"
    assert stored.metadata == {"sha256": hashlib.sha256(b"a").hexdigest(), "mtime": mtime, "prompt-id": "prompt-7"}
    stored = r2.objects[key(uploader, "large.mp4")]
    assert stored.content == large[:LARGE]
    assert stored.content_type == "video/mp4"
    assert stored.metadata["sha256"] == stored.sha256
    sizes = sorted(int(request.headers["content-length"]) for request in r2.operations("upload_part"))
    assert sizes == [1, PART_SIZE, PART_SIZE]


def test_part_sizes() -> None:
    assert part_size(MULTIPART_ABOVE + 1) == PART_SIZE
    for size in (PART_SIZE * 10_000, PART_SIZE * 10_000 + 1, 5 * 1024**4):
        assert -(-size // part_size(size)) <= 10_000
        assert part_size(size) % 1024**2 == 0


def test_the_same_content_is_sent_once(r2: R2, uploader: Uploader) -> None:
    first = send(uploader, "a.png", b"a")
    again = send(uploader, "a.png")
    assert (first.key, first.was_there, again.was_there) == (again.key, False, True)
    assert len(r2.objects) == 1


def test_other_content_gets_a_key_of_its_own(r2: R2, uploader: Uploader) -> None:
    send(uploader, "a.png", b"first")
    second = send(uploader, "a.png", b"second")
    assert second.key == key(uploader, "a.png").replace(".png", f".{hashlib.sha256(b'second').hexdigest()[:12]}.png")
    # What lies even there is respected.
    third = hashlib.sha256(b"third").hexdigest()
    (uploader.root / f"a.{third[:12]}.png").write_bytes(b"a file that has this name")
    send(uploader, f"a.{third[:12]}.png")
    assert send(uploader, "a.png", b"third").key.endswith(f"a.{third}.png")
    assert sorted(found.content for found in r2.objects.values()) == sorted(
        [b"first", b"second", b"third", b"a file that has this name"]
    )
    assert r2.overwritten == []


def test_a_race_for_a_key_is_lost_gracefully(r2: R2, uploader: Uploader) -> None:
    # The other pod's object comes between our look and our put: only the condition notices.
    def theirs(operation: str, name: str) -> None:
        if operation == "put_object" and not r2.objects:
            r2.lay(name, b"theirs")

    r2.before = theirs
    ours = send(uploader, "a.png", b"ours")
    assert r2.contents() == {key(uploader, "a.png"): b"theirs", ours.key: b"ours"}
    assert r2.overwritten == []


def test_an_object_of_another_tool_is_recognised(r2: R2, uploader: Uploader) -> None:
    (uploader.root / "a.png").write_bytes(b"a")
    r2.lay(key(uploader, "a.png"), b"a")
    assert send(uploader, "a.png").was_there


def test_a_bucket_that_heeds_conditions_is_not_asked_first(r2: R2, uploader: Uploader) -> None:
    for number in range(5):
        send(uploader, f"{number}.png", b"%d" % number)
    assert len(r2.operations("head_object")) == 1
    # A key that is taken is respected all the same, and the next keys are looked up first.
    r2.lay(f"o/{utc_date(0)}/x.png", b"theirs")
    (uploader.root / "x.png").write_bytes(b"ours")
    os.utime(uploader.root / "x.png", (1, 1))
    assert send(uploader, "x.png").key.startswith(f"o/{utc_date(0)}/x.")
    asked = len(r2.operations("head_object"))
    send(uploader, "after.png", b"after")
    assert len(r2.operations("head_object")) == asked + 1
    assert r2.overwritten == []


def test_a_server_that_heeds_no_condition_is_always_asked_first(r2: R2, uploader: Uploader) -> None:
    r2.conditional_put = False
    for number in range(3):
        send(uploader, f"{number}.png", b"%d" % number)
    assert len(r2.operations("head_object")) == 3
    assert r2.overwritten == [key(uploader, "0.png")]  # By the very same bytes, to find out.
    second = send(uploader, "1.png", b"other")
    assert r2.objects[second.key].content == b"other"
    assert len(r2.overwritten) == 1


def test_a_token_that_may_not_read(r2: R2, uploader: Uploader) -> None:
    r2.may_read = False
    send(uploader, "a.png", b"a")
    second = send(uploader, "a.png", b"b")
    assert {found.content for found in r2.objects.values()} == {b"a", b"b"}
    assert r2.objects[second.key].content == b"b"


def test_a_token_that_may_not_read_and_a_lost_journal(r2: R2, uploader: Uploader) -> None:
    r2.may_read = False
    send(uploader, "a.png", b"a")
    forgetful = Uploader(uploader.bucket, "o", uploader.root)
    for _ in range(4):
        send(forgetful, "a.png")
    assert all(found.content == b"a" for found in r2.objects.values())
    assert len(r2.objects) == 3


def test_foreign_objects_at_every_key(r2: R2, uploader: Uploader) -> None:
    sha256 = hashlib.sha256(b"a").hexdigest()
    (uploader.root / "a.png").write_bytes(b"a")
    for mark in ("", f".{sha256[:12]}", f".{sha256}"):
        r2.lay(key(uploader, "a.png").replace(".png", f"{mark}.png"), b"foreign")
    with pytest.raises(AllKeysTakenError) as caught:
        send(uploader, "a.png")
    assert "rename the file" in classify(caught.value, r2.url, r2.bucket).sentence
    (uploader.root / "a.png").rename(uploader.root / "b.png")
    assert r2.objects[send(uploader, "b.png").key].content == b"a"


def test_parts_go_on_where_they_stopped(r2: R2, uploader: Uploader, large: bytes) -> None:
    r2.fail(503, "ServiceUnavailable", operation="complete_upload")
    with pytest.raises(ClientError):
        send(uploader, "large.mp4", large[:LARGE])
    assert len(r2.operations("upload_part")) == 3
    # As after a crash: a new process knows only the journal.
    assert uploader.journal is not None
    again = Uploader(uploader.bucket, "o", uploader.root, Journal(uploader.journal.path))
    assert not send(again, "large.mp4").was_there
    assert len(r2.operations("upload_part")) == 3
    assert len(r2.operations("create_upload")) == 1
    assert r2.objects[key(uploader, "large.mp4")].content == large[:LARGE]
    assert r2.uploads == {}
    assert uploader.journal.open_uploads() == []


def test_an_upload_begun_just_before_a_kill_is_ended_by_the_next_process(
    r2: R2, uploader: Uploader, large: bytes
) -> None:
    # The bucket has begun it, and its answer with the id never came.
    r2.fail(operation="create_upload", after=True)
    with pytest.raises(BotoCoreError):
        send(uploader, "large.mp4", large[:LARGE])
    assert len(r2.uploads) == 1
    assert uploader.journal is not None
    again = Uploader(uploader.bucket, "o", uploader.root, Journal(uploader.journal.path))
    send(again, "large.mp4")
    assert r2.objects[key(uploader, "large.mp4")].content == large[:LARGE]
    assert r2.uploads == {}
    assert Journal(uploader.journal.path).open_uploads() == []


def test_what_was_begun_just_before_a_kill_is_ended_though_its_file_is_gone(
    r2: R2, uploader: Uploader, large: bytes
) -> None:
    r2.fail(operation="create_upload", after=True)
    with pytest.raises(BotoCoreError):
        send(uploader, "large.mp4", large[:LARGE])
    other, older = uploader.bucket.begin("o/other.mp4", {}), uploader.bucket.begin(key(uploader, "large.mp4"), {})
    r2.uploads[older].at -= 3600  # Somebody else's, begun long before ours.
    assert uploader.journal is not None
    (noted,) = uploader.journal.open_uploads()
    uploader.parts.give_up(noted)
    assert set(r2.uploads) == {other, older}
    assert uploader.journal.open_uploads() == []


def test_a_part_that_failed_is_sent_again(r2: R2, uploader: Uploader, large: bytes) -> None:
    r2.fail(operation="upload_part")
    with pytest.raises(BotoCoreError):
        send(uploader, "large.mp4", large[:LARGE])
    send(uploader, "large.mp4")
    assert r2.objects[key(uploader, "large.mp4")].content == large[:LARGE]
    assert len(r2.operations("create_upload")) == 1


def test_an_upload_that_the_bucket_forgot_begins_again(r2: R2, uploader: Uploader, large: bytes) -> None:
    r2.fail(503, "ServiceUnavailable", operation="complete_upload")
    with pytest.raises(ClientError):
        send(uploader, "large.mp4", large[:LARGE])
    r2.uploads.clear()
    with pytest.raises(UploadLostError):
        send(uploader, "large.mp4")
    send(uploader, "large.mp4")
    assert r2.objects[key(uploader, "large.mp4")].content == large[:LARGE]


def test_a_lost_answer_to_the_last_request(r2: R2, uploader: Uploader, large: bytes) -> None:
    r2.fail(operation="complete_upload", after=True)
    with pytest.raises(BotoCoreError):
        send(uploader, "large.mp4", large[:LARGE])
    assert send(uploader, "large.mp4").was_there
    assert len(r2.objects) == 1


def test_a_changed_file_gives_its_parts_up(r2: R2, uploader: Uploader, large: bytes) -> None:
    r2.fail(503, "ServiceUnavailable", operation="complete_upload")
    with pytest.raises(ClientError):
        send(uploader, "large.mp4", large[:LARGE])
    send(uploader, "large.mp4", large[1 : LARGE + 1])
    assert [found.content for found in r2.objects.values()] == [large[1 : LARGE + 1]]
    assert r2.uploads == {}
    assert len(r2.operations("abort_upload")) == 1


@pytest.mark.parametrize("late", ["upload_part", "complete_upload"])
def test_a_key_taken_while_parts_were_sent(r2: R2, uploader: Uploader, large: bytes, late: str) -> None:
    def theirs(operation: str, name: str) -> None:
        if operation == late and not r2.objects:
            r2.lay(name, b"theirs")

    r2.before = theirs
    ours = send(uploader, "large.mp4", large[:LARGE])
    assert r2.contents() == {key(uploader, "large.mp4"): b"theirs", ours.key: large[:LARGE]}
    assert r2.overwritten == []
    assert r2.uploads == {}


@pytest.mark.parametrize("size", [9 * 1024**2, LARGE])
def test_a_torn_file_is_refused(r2: R2, uploader: Uploader, large: bytes, size: int) -> None:
    path = uploader.root / "torn.mp4"

    def write(operation: str, name: str) -> None:
        if operation == "head_object":
            with path.open("r+b") as file:
                file.write(b"other bytes of the same length")

    r2.before = write
    with pytest.raises((FileChangedError, ClientError)):
        send(uploader, "torn.mp4", large[:size])
    assert r2.objects == {}


def test_a_file_cut_short_while_it_is_sent(r2: R2, uploader: Uploader, large: bytes) -> None:
    path = uploader.root / "short.mp4"
    r2.before = lambda operation, name: os.truncate(path, 1000)
    with pytest.raises((FileChangedError, BotoCoreError)):
        send(uploader, "short.mp4", large[: 9 * 1024**2])
    assert r2.objects == {}


def test_a_file_swapped_for_a_link_is_refused(uploader: Uploader, r2: R2) -> None:
    secret = uploader.root.parent / "secret"
    secret.mkdir()
    (secret / "a.png").write_bytes(b"secret")
    (uploader.root / "sub").mkdir()
    (uploader.root / "sub/a.png").write_bytes(b"public")
    seen = look(uploader.root, "sub/a.png")
    assert seen is not None
    (uploader.root / "sub/a.png").unlink()
    (uploader.root / "sub").rmdir()
    (uploader.root / "sub").symlink_to(secret)
    with pytest.raises(FileChangedError):
        uploader.upload("sub/a.png", seen)
    assert r2.objects == {}
