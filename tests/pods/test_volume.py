"""A network volume is filled over S3 with whole and verified models only, once, and nothing half sent is left on it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes import sigv4
from fakes.hub import COMMIT, REPO, Hub, Repo, Stored, safetensors
from fakes.r2 import R2
from fakes.runpod import KEY, RunPod
from hearmeman.models.catalogue import File
from hearmeman.models.remote import Remote
from hearmeman_pod import command, volume_fill
from hearmeman_pod.errors import PodError

CONTENT = safetensors(3 << 20, b"a model of three parts")
TO = "ComfyUI/models/checkpoints/big.safetensors"


@dataclass
class World:
    root: Path
    hub: Hub
    r2: R2
    runpod: RunPod
    capsys: pytest.CaptureFixture[str]

    def catalogue(self, sha256: str = "", size: int = len(CONTENT)) -> None:
        text = f"""
[[file]]
id = "big"
to = "checkpoints/big.safetensors"
size = {size}
sha256 = "{sha256 or hashlib.sha256(CONTENT).hexdigest()}"

[file.source]
kind = "huggingface"
repo = "{REPO}"
revision = "{COMMIT}"
path = "big.safetensors"

[[model]]
id = "big"
title = "A model"
files = ["big"]
"""
        (self.root / "catalogue.toml").write_text(text)

    def fill(self, *words: str, **more: str) -> tuple[int, list[dict[str, Any]], str]:
        environ = {
            "HOME": str(self.root),
            "RUNPOD_API_KEY": KEY,
            "RUNPOD_API_URL": self.runpod.url,
            "RUNPOD_S3_URL": self.r2.url,
            "RUNPOD_S3_ACCESS_KEY": self.r2.access_key,
            "RUNPOD_S3_SECRET_KEY": self.r2.secret_key,
            "HF_ENDPOINT": self.hub.url,
            "MODEL_CATALOGUE": str(self.root / "catalogue.toml"),
        } | more
        code = command.main(["volume", "fill", "vol1", "--set", "MODELS=big", "--json", *words], environ)
        said = self.capsys.readouterr()
        assert self.r2.secret_key not in said.out + said.err
        return code, json.loads(said.out) if said.out else [], said.err


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(volume_fill, "PART_BYTES", 5 * 1024**2)
    # A data centre of RunPod signs with its own name.
    monkeypatch.setattr(sigv4, "REGIONS", ("us-ks-2",))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    repos = {REPO: Repo({"big.safetensors": Stored(CONTENT)})}
    with Hub(repos) as hub, R2("vol1") as r2, RunPod() as runpod:
        made = World(tmp_path, hub, r2, runpod, capsys)
        made.catalogue()
        yield made
        assert runpod.invalid == []
        assert r2.uploads == {}, "what is half sent fills the volume and shows nowhere"


def test_a_model_is_sent_in_parts_verified_and_not_sent_again(world: World) -> None:
    code, found, err = world.fill()
    assert code == 0, err
    assert (found[0]["key"], found[0]["state"], found[0]["verified"]) == (TO, "filled", "sha256")
    assert world.r2.contents() == {TO: CONTENT}
    assert len(world.r2.operations("upload_part")) == 3
    assert world.fill()[1][0]["state"] == "present"
    assert len(world.r2.operations("upload_part")) == 3


def test_another_content_never_appears_on_the_volume(world: World) -> None:
    world.hub.repos = {REPO: Repo({"big.safetensors": Stored(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))})}
    code, found, _ = world.fill()
    assert code == 1 and found[0]["state"] == "failed"
    assert world.r2.contents() == {}


def test_bytes_that_are_not_what_the_source_states_are_refused_at_their_end(world: World) -> None:
    file = File.model_validate(
        {"id": "a", "to": "vae/a.bin", "size": 3, "source": {"kind": "url", "url": "https://x.example/a"}}
    )
    remote = Remote("https://x.example/a", sha256=hashlib.sha256(b"abc").hexdigest())
    for content, says in ((b"abd", "sha256"), (b"ab", "2 bytes")):
        check = volume_fill._Check(file, remote, 3)
        assert b"".join(volume_fill._parts(iter([content]), check)) == content
        with pytest.raises(PodError, match=says):
            check.verdict()


def test_what_a_killed_run_left_is_swept(world: World) -> None:
    import boto3

    keys: dict[str, Any] = {"aws_access_key_id": world.r2.access_key, "aws_secret_access_key": world.r2.secret_key}
    client = boto3.client("s3", endpoint_url=world.r2.url, region_name="us-ks-2", **keys)
    client.create_multipart_upload(Bucket="vol1", Key=TO)
    assert len(world.r2.uploads) == 1
    assert world.fill()[0] == 0


def test_a_part_that_is_refused_ends_the_upload_and_the_next_run_sends_it(world: World) -> None:
    world.r2.fail(403, "AccessDenied", operation="upload_part")
    code, found, _ = world.fill()
    assert code == 1 and "AccessDenied" in found[0]["why"]
    assert world.fill()[0] == 0


@pytest.mark.parametrize(
    ("words", "more", "says"),
    [
        (["--set", "MODELS="], {}, "no model"),
        ([], {"RUNPOD_S3_SECRET_KEY": ""}, "S3 API Keys"),
    ],
)
def test_what_cannot_work_sends_nothing(world: World, words: list[str], more: dict[str, str], says: str) -> None:
    code, _, err = world.fill(*words, **more)
    assert code == 2 and says in err
    assert world.r2.requests == []


def test_models_that_do_not_fit_are_refused_before_anything_is_sent(world: World) -> None:
    world.catalogue(size=200 * 10**9)
    code, _, err = world.fill()
    assert code == 2 and "enlarge" in err
    assert world.r2.requests == []


def test_volumes_are_listed(world: World) -> None:
    environ = {"HOME": str(world.root), "RUNPOD_API_KEY": KEY, "RUNPOD_API_URL": world.runpod.url}
    assert command.main(["volume", "list"], environ) == 0
    assert "vol1  v  100 GB  US-KS-2" in world.capsys.readouterr().out


def account(world: World, *words: str) -> tuple[int, str, str]:
    """Run a verb that works on the account: (exit code, standard output, standard error)."""
    environ = {"HOME": str(world.root), "RUNPOD_API_KEY": KEY, "RUNPOD_API_URL": world.runpod.url}
    code = command.main(["volume", *words], environ)
    said = world.capsys.readouterr()
    assert world.runpod.invalid == []
    return code, said.out, said.err


NEW = ("create", "models", "--size", "1200", "--datacenter", "US-KS-2")


@pytest.mark.parametrize("happens", ["ok", "drop-after"])
def test_a_volume_is_made_once_and_deleted(world: World, happens: str) -> None:
    world.runpod.volume_changes.append(happens)
    code, out, _ = account(world, *NEW, "--yes", "--json")
    made = json.loads(out)
    assert (code, made["id"], made["per_month"]) == (0, "vol2", 80.0)
    assert [one["name"] for one in world.runpod.volumes.values()] == ["v", "models"]
    assert account(world, *NEW, "--yes")[0] == 2, "there is one of this name"
    world.runpod.volume_changes.append(happens)
    assert account(world, "delete", "models", "--yes")[0] == 0
    assert list(world.runpod.volumes) == ["vol1"]


def test_the_price_is_said_before_anything_is_made_and_what_is_deleted_before_it_is(world: World) -> None:
    code, _, err = account(world, *NEW)
    assert code == 2 and "$80.00 a month until it is deleted" in err
    code, _, err = account(world, "delete", "vol1")
    assert code == 2 and "v (vol1), 100 GB, and all that is on it" in err
    assert [method for method, _, _ in world.runpod.requests if method != "GET"] == []


@pytest.mark.parametrize(
    ("words", "happens", "code", "says"),
    [
        (("create", "x", "--size", "9", "--datacenter", "US-KS-2"), "", 2, "10 to 4096 GB"),
        ((*NEW, "--yes"), "500-before", 1, "500"),
        (("delete", "vol1", "--yes"), "409", 1, "a pod uses this volume"),
        (("delete", "vol1", "--yes"), "500-before", 1, "500"),
        (("delete", "nope", "--yes"), "", 2, "there is no volume nope"),
    ],
)
def test_what_was_not_done_is_said(world: World, words: tuple[str, ...], happens: str, code: int, says: str) -> None:
    if happens:
        world.runpod.volume_changes.append(happens)
    got, _, err = account(world, *words)
    assert got == code and says in err
    assert list(world.runpod.volumes) == ["vol1"]


def test_a_volume_where_fill_cannot_work_is_made_with_a_note(world: World) -> None:
    code, _, err = account(world, "create", "far", "--size", "10", "--datacenter", "EU-SE-1", "--yes")
    assert code == 0 and "no S3 API in EU-SE-1" in err
