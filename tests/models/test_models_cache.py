"""A bucket as a cache of models, against a real S3 server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import Hub, Repo
from fakes.s3 import S3
from fakes.serving import Stored
from support.fetching import Case

LOCKED = Stored(hashlib.shake_128(b"locked").digest(9_000_000))
STATED = Stored(hashlib.shake_128(b"stated").digest(1_000_000))


@pytest.fixture
def s3() -> Iterator[S3]:
    with S3() as running:
        yield running


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({"a/b": Repo({"l.bin": LOCKED, "s.bin": STATED})}) as running:
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


def test_a_wrong_object_is_fetched_again_from_its_source(tmp_path: Path, hub: Hub, s3: S3) -> None:
    place = s3.root / f"runpod/models/sha256/{LOCKED.sha256}"
    place.parent.mkdir(parents=True)
    place.write_bytes(bytes(len(LOCKED.data)))
    made = case(tmp_path / "one", hub, s3)
    done = made.run("fetch")
    assert done.code == 0, done.err
    assert "model.again" in done.err
    assert (made.folder / "checkpoints/l.bin").read_bytes() == LOCKED.data


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
