"""A bucket as a cache of models, against a real S3 server."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import Hub, Repo
from fakes.r2 import R2
from fakes.s3 import S3
from fakes.serving import Stored
from hearmeman.models import cache
from support.fetching import Case

LOCKED = Stored(hashlib.shake_128(b"locked").digest(9_000_000))
STATED = Stored(hashlib.shake_128(b"stated").digest(1_000_000))


@pytest.fixture
def s3() -> Iterator[S3]:
    with S3() as running:
        yield running


@pytest.fixture
def hub() -> Iterator[Hub]:
    other = Stored(hashlib.shake_128(b"other").digest(500_000))
    with Hub({"a/b": Repo({"l.bin": LOCKED, "s.bin": STATED, "t.bin": other})}) as running:
        yield running


def case(folder: Path, hub: Hub, s3: S3) -> Case:
    """A fresh volume."""
    folder.mkdir()
    keys = {"R2_ENDPOINT": s3.url, "R2_ACCESS_KEY_ID": s3.access_key, "R2_SECRET_ACCESS_KEY": s3.secret_key}
    made = Case(folder, {"HF_ENDPOINT": hub.url, "MODEL_CACHE": "s3://runpod/models", **keys})
    source = {"kind": "huggingface", "repo": "a/b"}
    made.add("l", {**source, "path": "l.bin"}, size=len(LOCKED.data), sha256=LOCKED.sha256)
    made.add("s", {**source, "path": "s.bin"})
    return made


def on_r2(folder: Path, hub: Hub, r2: R2) -> Case:
    """A fresh volume with a cache in an R2 that enforces R2's rules."""
    folder.mkdir()
    made = Case(folder, {"HF_ENDPOINT": hub.url, "MODEL_CACHE": f"s3://{r2.bucket}/models", **r2.environ()})
    made.variables["ENABLE_R2_SYNC"] = "false"
    source = {"kind": "huggingface", "repo": "a/b", "path": "l.bin"}
    made.add("l", source, size=len(LOCKED.data), sha256=LOCKED.sha256)
    return made


def test_filled_by_the_first_volume_and_asked_first_by_the_second(tmp_path: Path, hub: Hub, s3: S3) -> None:
    done = case(tmp_path / "one", hub, s3).run("fetch")
    assert done.code == 0, done.err
    assert s3.objects() == {
        f"models/sha256/{LOCKED.sha256}": LOCKED.data,
        f"models/sha256/{STATED.sha256}": STATED.data,
    }
    before = len([request for request in hub.requests if request.host == "storage"])
    second = case(tmp_path / "two", hub, s3)
    again = second.run("fetch")
    assert again.code == 0, again.err
    assert (second.folder / "checkpoints/l.bin").read_bytes() == LOCKED.data
    assert (second.folder / "checkpoints/s.bin").read_bytes() == STATED.data
    assert len([request for request in hub.requests if request.host == "storage"]) == before
    assert s3.secret_key not in again.err + done.err
    assert "Signature" not in again.err + done.err


@pytest.mark.parametrize(
    "object",
    [bytes(len(LOCKED.data)), LOCKED.data[:1000], b"", LOCKED.data + b"more"],
    ids=["wrong bytes", "its first bytes", "nothing", "more"],
)
def test_whatever_is_wrong_with_an_object_the_source_is_asked_and_the_object_replaced(
    tmp_path: Path, hub: Hub, s3: S3, object: bytes
) -> None:
    key = f"models/sha256/{LOCKED.sha256}"
    place = s3.root / "runpod" / key
    place.parent.mkdir(parents=True)
    place.write_bytes(object)
    made = case(tmp_path / "one", hub, s3)
    done = made.run("fetch")
    assert done.code == 0, done.err
    assert done.err.count("cache.mismatched") == 1
    assert (made.folder / "checkpoints/l.bin").read_bytes() == LOCKED.data
    assert s3.objects()[key] == LOCKED.data
    again = case(tmp_path / "two", hub, s3).run("fetch")
    assert again.code == 0, again.err
    assert "how=cache" in again.err, "the log says where a file came from"
    assert "cache.mismatched" not in again.err


def test_links_of_the_cache_that_are_refused_lead_to_the_source(tmp_path: Path, hub: Hub) -> None:
    """R2 answers the HEAD, and 403 to every GET: a token that may write and not read."""
    with R2() as r2:
        r2.lay(f"models/sha256/{LOCKED.sha256}", LOCKED.data)
        r2.fail(403, "AccessDenied", operation="get_object", times=1000)
        made = on_r2(tmp_path / "one", hub, r2)
        done = made.run("fetch")
    assert done.code == 0, done.err
    assert "cache.mismatched" in done.err
    assert (made.folder / "checkpoints/l.bin").read_bytes() == LOCKED.data


@pytest.mark.parametrize("terms", [{"gate": "accept it"}, {"no_mirror": "CPML"}])
def test_what_may_not_be_copied_is_kept_out_unless_asked(
    tmp_path: Path, hub: Hub, s3: S3, terms: dict[str, str]
) -> None:
    source = {"kind": "huggingface", "repo": "a/b", "path": "s.bin"}
    for name, asked, kept in (("one", "false", 2), ("two", "true", 3)):
        made = case(tmp_path / name, hub, s3)
        made.files[-1].update(terms, source={**source, "path": "t.bin"})
        made.add("open", source)
        assert made.run("fetch", MODEL_CACHE_RESTRICTED=asked).code == 0
        assert len(s3.objects()) == kept


def test_filling_shows_how_far_it_is_and_ends_at_a_signal_without_an_open_multipart(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = Stored(hashlib.shake_128(b"large").digest(30 * 1024**2))
    hub.repos["a/large"] = Repo({"large.bin": large})
    monkeypatch.setattr(cache, "PART_BYTES", 5 * 1024**2)
    monkeypatch.setattr(cache, "AT_ONCE", 1)
    before = signal.getsignal(signal.SIGTERM)
    with R2() as r2:
        made = on_r2(tmp_path / "one", hub, r2)
        made.add("large", {"kind": "huggingface", "repo": "a/large", "path": "large.bin"})

        def slow(operation: str, key: str) -> None:
            if operation == "upload_part":
                if len(r2.operations("upload_part")) == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.3)

        r2.before = slow
        try:
            done = made.run("fetch")
        finally:
            signal.signal(signal.SIGTERM, before)
        assert done.code == 130, done.err
        assert "cache.filling file=large.bin percent=" in done.err
        assert "cache.stopped unfinished=1" in done.err
        assert r2.uploads == {}, "no multipart upload is left open"
        assert f"models/sha256/{large.sha256}" not in r2.objects
        assert (made.folder / "checkpoints/large.bin").read_bytes() == large.data
        assert not (made.folder / ".hearmeman/lease.json").exists()


def test_a_bucket_that_does_not_answer_is_done_without(tmp_path: Path, hub: Hub, s3: S3) -> None:
    made = case(tmp_path / "one", hub, s3)
    s3.stop()
    done = made.run("fetch")
    assert done.code == 0, done.err
    assert done.err.count("cache.unusable") == 1


def test_it_needs_an_endpoint_and_keys(tmp_path: Path, hub: Hub, s3: S3) -> None:
    done = case(tmp_path / "one", hub, s3).run("fetch", R2_ENDPOINT="")
    assert done.code == 2
    assert "MODEL_CACHE needs R2_ENDPOINT" in done.err
    assert case(tmp_path / "two", hub, s3).run("fetch", MODEL_CACHE="/a/b").code == 2
