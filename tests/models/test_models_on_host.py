"""RunPod's cached models: used from the host once they are verified, and fetched where they are not what they should be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import Hub, Repo
from fakes.serving import Stored
from support.fetching import Case

BIG = Stored(hashlib.shake_128(b"big").digest(3_000_000))
OTHER = Stored(hashlib.shake_128(b"other").digest(1_000_000))


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({"a/b": Repo({"x/big.bin": BIG, "other.bin": OTHER})}) as running:
        yield running


def case(folder: Path, hub: Hub) -> Case:
    """A fresh volume, and a host's cache beside it that is empty yet."""
    (folder / "volume").mkdir()
    made = Case(folder / "volume", {"HF_ENDPOINT": hub.url, "MODEL_HOST_CACHE": str(folder / "hub")})
    made.add(
        "big",
        {"kind": "huggingface", "repo": "a/b", "path": "x/big.bin"},
        size=len(BIG.data),
        sha256=BIG.sha256,
    )
    return made


def cached(folder: Path, path: str, content: bytes, sha256: str) -> Path:
    """Put a file into the host's cache as the Hub's own client does: a snapshot of links to blobs; the blob."""
    repo = folder / "hub/models--a--b"
    blob, link = repo / "blobs" / sha256, repo / "snapshots" / ("c" * 40) / path
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(blob)
    return blob


def test_a_cached_model_is_used_from_the_host_and_nothing_is_fetched(tmp_path: Path, hub: Hub) -> None:
    made, blob = case(tmp_path, hub), cached(tmp_path, "x/big.bin", BIG.data, BIG.sha256)
    done = made.run("fetch")
    place = made.folder / "checkpoints/big.bin"
    assert (done.code, place.resolve()) == (0, blob), done.err
    assert "model.linked" in done.err and "how=verify" in done.err
    assert hub.links == 0
    # The next start reads nothing again.
    assert "how=verify" not in made.run("fetch").err


@pytest.mark.parametrize("content", [BIG.data[:-1] + b"\0", BIG.data[:-9]], ids=["rewritten", "cut"])
def test_a_cached_model_that_is_not_what_its_name_says_is_fetched(tmp_path: Path, hub: Hub, content: bytes) -> None:
    made, blob = case(tmp_path, hub), cached(tmp_path, "x/big.bin", content, BIG.sha256)
    assert made.run("fetch").code == 0
    place = made.folder / "checkpoints/big.bin"
    assert place.read_bytes() == BIG.data and not place.is_symlink()
    assert blob.read_bytes() == content, "the host's file was written to"


def test_a_link_to_a_cache_that_this_host_does_not_have_gives_way(tmp_path: Path, hub: Hub) -> None:
    made, blob = case(tmp_path, hub), cached(tmp_path, "x/big.bin", BIG.data, BIG.sha256)
    assert made.run("fetch").code == 0
    blob.unlink()
    assert made.run("fetch").code == 0
    place = made.folder / "checkpoints/big.bin"
    assert place.read_bytes() == BIG.data and not place.is_symlink()
    assert not (made.folder / ".hearmeman/replaced").exists()


def test_what_a_snapshot_leads_to_outside_the_cache_is_not_used(tmp_path: Path, hub: Hub) -> None:
    made, blob = case(tmp_path, hub), cached(tmp_path, "x/big.bin", BIG.data, BIG.sha256)
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    assert made.run("fetch").code == 0
    assert not (made.folder / "checkpoints/big.bin").is_symlink()


def test_a_file_of_which_no_hash_is_known_is_fetched(tmp_path: Path, hub: Hub) -> None:
    made = case(tmp_path, hub)
    place = made.add("other", {"kind": "huggingface", "repo": "a/b", "path": "other.bin"})
    cached(tmp_path, "other.bin", b"anything", "d" * 40)
    assert made.run("fetch").code == 0
    assert place.read_bytes() == OTHER.data
