"""A network volume is filled over S3 with whole and verified models only; what was sent once is not sent again."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from fakes import sigv4
from fakes.hub import COMMIT, REPO, Hub, Repo, Stored, safetensors
from fakes.r2 import R2
from fakes.r2_rules import Object, Upload
from fakes.runpod import KEY, RunPod
from fakes.s3 import S3
from hearmeman_pod import command, volume_fill, volume_upload
from hearmeman_pod.volume_check import Check, Wanted, WrongContentError
from hearmeman_pod.volume_upload import cut
from support.repository import ROOT
from support.waiting import PATIENCE, wait_for

PART = 5 * 1024**2
CONTENT = safetensors(3 << 20, b"a model of three parts")
OTHER = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
TO = "ComfyUI/models/checkpoints/big.safetensors"
RECORD = "ComfyUI/models/.hearmeman/filled/checkpoints/big.safetensors.json"
_PROGRAM = f"""
import sys
from hearmeman_pod import command, volume_upload
volume_upload.PART_BYTES = {PART}
sys.exit(command.main(sys.argv[1:]))
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class World:
    root: Path
    hub: Hub
    r2: R2
    runpod: RunPod
    capsys: pytest.CaptureFixture[str]

    def catalogue(self, content: bytes = CONTENT, size: int = len(CONTENT), known: str = "sha256") -> None:
        """Write the catalogue; `known` is what it says of the file beside its size."""
        hashed = f'sha256 = "{sha256(content)}"' if known == "sha256" else ""
        text = f"""
[[file]]
id = "big"
to = "checkpoints/big.safetensors"
size = {size}
{hashed}

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

    def offers(self, content: bytes) -> None:
        """Let the source have this content."""
        self.hub.repos = {REPO: Repo({"big.safetensors": Stored(content)})}

    def environ(self) -> dict[str, str]:
        return {
            "HOME": str(self.root),
            "RUNPOD_API_KEY": KEY,
            "RUNPOD_API_URL": self.runpod.url,
            "RUNPOD_S3_URL": self.r2.url,
            "RUNPOD_S3_ACCESS_KEY": self.r2.access_key,
            "RUNPOD_S3_SECRET_KEY": self.r2.secret_key,
            "HF_ENDPOINT": self.hub.url,
            "MODEL_CATALOGUE": str(self.root / "catalogue.toml"),
        }

    def __call__(self, *words: str, **more: str) -> tuple[int, str, str]:
        """Run a verb of `volume`: (exit code, standard output, standard error)."""
        code = command.main(["volume", *words], self.environ() | more)
        said = self.capsys.readouterr()
        assert self.r2.secret_key not in said.out + said.err
        return code, said.out, said.err

    def fill(self, *words: str, **more: str) -> tuple[int, dict[str, Any], str]:
        """Fill the volume with the model: (exit code, what became of its file, standard error)."""
        code, out, err = self("fill", "vol1", "--set", "MODELS=big", "--json", *words, **more)
        return code, json.loads(out)[0] if out else {}, err

    def begun(self) -> subprocess.Popen[str]:
        """Begin to fill it in a process of its own."""
        words = [sys.executable, "-c", _PROGRAM, "volume", "fill", "vol1", "--set", "MODELS=big", "--json"]
        environ = {**self.environ(), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python")}
        return subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def sent(self) -> int:
        """Parts that were sent so far."""
        return len(self.r2.operations("upload_part"))


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(volume_upload, "PART_BYTES", PART)
    monkeypatch.setattr(volume_fill, "_LOOK_PAUSE", 0.02)
    # A data centre of RunPod signs with its own name.
    monkeypatch.setattr(sigv4, "REGIONS", ("us-ks-2",))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with Hub() as hub, R2("vol1") as r2, RunPod() as runpod:
        made = World(tmp_path, hub, r2, runpod, capsys)
        made.offers(CONTENT)
        made.catalogue()
        yield made
        assert runpod.invalid == []


def test_a_model_is_sent_in_parts_verified_and_not_sent_again(world: World) -> None:
    code, found, err = world.fill()
    assert code == 0, err
    assert (found["key"], found["state"], found["verified"], found["how"]) == (TO, "filled", "sha256", "sent")
    assert world.r2.contents()[TO] == CONTENT and world.sent() == 3
    world.hub.repos = {}
    code, found, _ = world.fill()
    assert (code, found["state"], found["verified"], found["how"]) == (0, "present", "sha256", "record")
    assert world.sent() == 3 and world.r2.operations("get_object")[-1].key == RECORD
    assert world.r2.uploads == {}


def test_another_content_never_appears_on_the_volume(world: World) -> None:
    world.offers(OTHER)
    code, found, _ = world.fill()
    assert code == 1 and found["state"] == "failed"
    assert world.r2.contents() == {}
    # The source states a sha256 that the catalogue knows nothing of, and sends something else.
    world.catalogue(known="size")
    world.hub.repos = {REPO: Repo({"big.safetensors": Stored(CONTENT)})}
    world.hub.by_hash = lambda sha256: Stored(OTHER)  # type: ignore[method-assign]
    code, found, _ = world.fill()
    assert code == 1 and "sha256" in found["why"]
    assert world.r2.contents() == {} and world.r2.uploads == {}, "nothing of it can be used"


def test_bytes_that_are_not_what_is_wanted_are_refused_at_their_end() -> None:
    wanted = Wanted("vae/a.bin", 3, sha256(b"abc"), None)
    for content, says in ((b"abd", "sha256"), (b"ab", "2 bytes")):
        check = Check(wanted)
        check.add(content)
        with pytest.raises(WrongContentError, match=says):
            check.verdict()
    blob = hashlib.sha1(b"blob 3\0abc", usedforsecurity=False).hexdigest()
    for content, fits in ((b"abc", True), (b"abd", False)):
        check = Check(Wanted("vae/a.txt", 3, None, blob))
        check.add(content)
        assert check.fits is fits


@pytest.mark.parametrize("sizes", [[], [1], [PART], [PART + 1], [PART - 1, 2, PART, 3 * PART]])
def test_parts_are_whole_but_for_the_last_and_nothing_is_lost(world: World, sizes: list[int]) -> None:
    blocks = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    parts = list(cut(iter(blocks)))
    assert b"".join(parts) == b"".join(blocks) and len(parts) >= 1
    assert {len(part) for part in parts[:-1]} <= {PART} and len(parts[-1]) <= PART


def test_a_killed_run_loses_what_was_on_its_way_and_no_more(world: World) -> None:
    third, killed = threading.Event(), threading.Event()
    parts = itertools.count()

    def before(operation: str, key: str) -> None:
        if operation == "upload_part" and next(parts) == 2:
            wait_for(lambda: sum(len(upload.parts) for upload in list(world.r2.uploads.values())) >= 2, "two parts")
            third.set()
            killed.wait(PATIENCE)
            raise ConnectionResetError  # Though its last bytes may have arrived before the kill.

    world.r2.before = before
    running = world.begun()
    assert third.wait(PATIENCE), running.communicate()
    running.kill()
    running.communicate()
    killed.set()
    world.r2.before = lambda operation, key: None
    assert world.r2.contents() == {}
    code, found, err = world.fill()
    assert code == 0, err
    assert found["kept"] in (2 * PART, PART + len(CONTENT) - 2 * PART), "whichever two of the three had arrived"
    assert world.r2.contents()[TO] == CONTENT and world.r2.uploads == {}


def half(world: World, *parts: bytes, key: str = TO) -> Upload:
    """Leave an upload there that an earlier run began."""
    made = Upload(key, "", {})
    for number, part in enumerate(parts, 1):
        made.parts[number] = Object(len(part), sha256(part), hashlib.md5(part).hexdigest(), "", {}, part)
    world.r2.uploads[f"upload{len(world.r2.uploads)}"] = made
    return made


@pytest.mark.parametrize(
    ("parts", "kept"),
    [
        ((CONTENT[:PART],), 1),
        ((CONTENT[:PART], CONTENT[PART : 2 * PART]), 2),
        ((bytes(PART), CONTENT[PART : 2 * PART]), 1),
        ((CONTENT[: PART - 1], CONTENT[PART - 1 : 2 * PART - 2]), 0),
        ((CONTENT[:PART], CONTENT[PART : 2 * PART], CONTENT[2 * PART :], b"more"), 2),
    ],
    ids=["one part", "two parts", "a part that is another", "another part size", "more parts than the file has"],
)
def test_parts_that_are_there_and_right_are_not_sent_again(world: World, parts: tuple[bytes, ...], kept: int) -> None:
    half(world, *parts)
    code, found, err = world.fill()
    assert code == 0, err
    last = len(CONTENT) - 2 * PART if len(parts) > 2 else 0
    assert (found["kept"], world.sent()) == (kept * PART + last, 3 - kept - bool(last))
    assert world.r2.contents()[TO] == CONTENT and world.r2.uploads == {}


def test_a_source_that_has_changed_meanwhile_is_sent_anew_where_it_differs(world: World) -> None:
    half(world, CONTENT[:PART], CONTENT[PART : 2 * PART])
    changed = CONTENT[:PART] + bytes(PART) + CONTENT[2 * PART :]
    world.offers(changed)
    world.catalogue(changed)
    code, found, err = world.fill()
    assert code == 0, err
    assert found["kept"] == PART and world.r2.contents()[TO] == changed


def test_a_part_that_is_refused_ends_the_file_and_the_next_run_goes_on(world: World) -> None:
    world.r2.fail(403, "AccessDenied", operation="upload_part")
    code, found, _ = world.fill()
    assert code == 1 and "AccessDenied" in found["why"]
    world.r2.heal()
    assert world.fill()[0] == 0
    assert world.r2.contents()[TO] == CONTENT and world.r2.uploads == {}


def test_of_two_fills_at_once_one_brings_the_file_and_the_other_finds_it(world: World) -> None:
    held, gone = threading.Semaphore(0), threading.Event()
    parts = itertools.count()

    def before(operation: str, key: str) -> None:
        if operation == "upload_part" and next(parts) < 3:
            held.release()
            gone.wait(PATIENCE)

    world.r2.before = before
    other = world.begun()
    for _ in range(3):
        assert held.acquire(timeout=PATIENCE), other.communicate()
    code, found, err = world.fill()
    gone.set()
    out, said = other.communicate(timeout=PATIENCE)
    assert (code, found["state"]) == (0, "filled"), err
    [theirs] = json.loads(out)
    assert (other.returncode, theirs["state"], theirs["how"]) == (0, "present", "record"), said
    assert world.r2.contents()[TO] == CONTENT and world.r2.uploads == {}


@pytest.mark.parametrize("status", [0, 502])
def test_an_answer_that_is_lost_when_the_parts_are_put_together_is_no_failure(world: World, status: int) -> None:
    world.r2.fail(status, operation="complete_upload", after=True, times=9)
    code, found, err = world.fill()
    assert code == 0, err
    assert found["state"] == "filled" and world.r2.contents()[TO] == CONTENT
    assert world.fill()[1]["how"] == "record"


def test_parts_that_are_never_put_together_stay_and_the_next_run_sends_none_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_fill, "_LOOKS_AT_OURS", 2)
    world.r2.fail(503, operation="complete_upload", times=9)
    code, found, _ = world.fill()
    assert code == 1 and "the same command goes on" in found["why"]
    world.r2.heal()
    code, found, _ = world.fill()
    assert (code, found["kept"], world.sent()) == (0, len(CONTENT), 3)


def test_rclones_s3_server_is_filled_too(world: World) -> None:
    with S3("vol1") as s3:
        keys: dict[str, Any] = {"aws_access_key_id": s3.access_key, "aws_secret_access_key": s3.secret_key}
        client = boto3.client("s3", endpoint_url=s3.url, region_name="us-ks-2", **keys)
        begun = client.create_multipart_upload(Bucket="vol1", Key=TO)["UploadId"]
        client.upload_part(Bucket="vol1", Key=TO, UploadId=begun, PartNumber=1, Body=CONTENT[:PART])
        here = {"RUNPOD_S3_URL": s3.url, "RUNPOD_S3_ACCESS_KEY": s3.access_key, "RUNPOD_S3_SECRET_KEY": s3.secret_key}
        code, found, err = world.fill(**here)
        assert (code, found["state"], found["kept"]) == (0, "filled", PART), err
        assert s3.objects()[TO] == CONTENT and set(s3.objects()) == {TO, RECORD}
        assert world.fill(**here)[1]["how"] == "record"


def test_a_file_without_a_record_is_known_by_its_size_until_it_is_read_back(world: World) -> None:
    world.r2.lay(TO, CONTENT)
    code, out, err = world("fill", "vol1", "--set", "MODELS=big")
    assert code == 0 and "its hash is not known" in err
    assert "of 1 (12.6 MB) only the size is known, --verify reads them back" in out
    assert world.fill()[1]["verified"] == "size"
    code, found, err = world.fill("--verify")
    assert (code, found["state"], found["verified"], found["how"]) == (0, "present", "sha256", "read")
    assert "reading 12.6 MB back" in err
    assert world.fill()[1]["how"] == "record"


def test_a_small_file_is_read_back_unasked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_upload, "PART_BYTES", len(CONTENT))
    world.r2.lay(TO, CONTENT)
    assert world.fill()[1]["how"] == "read"


def test_a_small_file_that_git_names_is_compared_with_that_name_now(world: World) -> None:
    world.hub.repos = {REPO: Repo({"big.safetensors": Stored(b"{}", lfs=False)})}
    world.catalogue(b"{}", 2, known="size")
    assert world.fill()[1]["verified"] == "git"
    assert world.fill()[1]["how"] == "read"
    world.hub.repos = {REPO: Repo({"big.safetensors": Stored(b"[]", lfs=False)})}
    code, found, err = world.fill()
    assert (code, found["state"], world.r2.contents()[TO]) == (0, "filled", b"[]"), err


def test_a_file_that_breaks_off_while_it_is_read_back_is_taken_up_there(world: World) -> None:
    world.r2.lay(TO, CONTENT)
    world.r2.fail(0, operation="get_object", key="big.safetensors", times=2)
    assert world.fill("--verify")[1]["how"] == "read"


def test_another_file_of_the_name_is_kept_unless_it_may_be_replaced(world: World) -> None:
    for content in (OTHER, b"short"):
        world.r2.lay(TO, content)
        code, found, _ = world.fill("--verify")
        assert code == 1 and "--replace" in found["why"]
        assert world.r2.contents()[TO] == content
    code, found, err = world.fill("--replace")
    assert (code, found["state"]) == (0, "filled"), err
    assert world.r2.contents()[TO] == CONTENT


def test_what_changed_since_it_was_filled_is_not_taken_for_what_was_filled(world: World) -> None:
    assert world.fill()[0] == 0
    world.r2.lay(TO, OTHER)
    world.r2.objects[TO].at += 60
    code, found, _ = world.fill()
    assert (code, found["verified"], found["how"]) == (0, "size", "")
    assert world.fill("--verify")[0] == 1


def test_what_a_fill_brought_gives_way_to_the_version_that_is_wanted_now(world: World) -> None:
    assert world.fill()[0] == 0
    world.offers(OTHER)
    world.catalogue(OTHER)
    code, found, err = world.fill()
    assert (code, found["state"]) == (0, "filled"), err
    assert world.r2.contents()[TO] == OTHER


def test_what_a_pod_has_verified_is_known(world: World) -> None:
    world.r2.lay(TO, CONTENT)
    record = {"size": len(CONTENT), "mtime_ns": int(world.r2.objects[TO].at) * 10**9 + 123, "source": "there"}
    name = "ComfyUI/models/.hearmeman/verified/checkpoints%2Fbig.safetensors.json"
    world.r2.lay(name, json.dumps({**record, "sha256": sha256(CONTENT)}).encode())
    assert world.fill()[1]["how"] == "record"


@pytest.mark.parametrize(
    "record", [b"", b"[1]", b'{"size": 1}', b'{"size": 1, "mtime_ns": "x", "sha256": ""}', b"\xff"]
)
def test_a_record_that_cannot_be_read_says_nothing(world: World, record: bytes) -> None:
    world.r2.lay(TO, CONTENT)
    world.r2.lay(RECORD, record)
    code, found, err = world.fill()
    assert (code, found["verified"], found["how"]) == (0, "size", ""), err


def test_what_is_half_sent_of_other_files_is_named_and_swept_after_a_question(world: World) -> None:
    half(world, CONTENT[:PART], key="ComfyUI/models/vae/other.safetensors")
    half(world, CONTENT[:PART], key="somebody/elses.bin")
    code, _, err = world.fill()
    assert code == 0 and "5.24 MB of other files are half sent" in err and "volume sweep vol1" in err
    code, _, err = world("sweep", "vol1")
    assert code == 2 and "vae/other.safetensors: 5.24 MB" in err and len(world.r2.uploads) == 2
    assert "5.24 MB are removed" in world("sweep", "vol1", "--yes")[1]
    assert [upload.key for upload in world.r2.uploads.values()] == ["somebody/elses.bin"]
    assert "nothing is half sent" in world("sweep", "vol1")[1]


def test_what_is_left_out_is_said(world: World) -> None:
    text = (world.root / "catalogue.toml").read_text()
    extra = '[[model]]\nid = "huge"\ntitle = "A model"\nfiles = ["big"]\ntiers = ["datacenter"]\n'
    (world.root / "catalogue.toml").write_text(text + extra + 'when = { ENABLE_INFCAM = "true" }\n')
    address = "https://example.com/a.safetensors"
    code, _, err = world.fill("--set", f"MODELS=big,{address}", "--set", "ENABLE_INFCAM=true")
    assert code == 0 and "huge is left out: it is for datacenter; --gpu-tier datacenter brings it" in err
    assert f"{address} is left out" in err
    for words in (("--gpu-tier", "datacenter"), ("--set", "GPU_TIER=datacenter")):
        assert "huge is left out" not in world.fill("--set", "ENABLE_INFCAM=true", *words)[2]


@pytest.mark.parametrize(
    ("words", "more", "says"),
    [
        (["--set", "MODELS="], {}, "no model"),
        ([], {"RUNPOD_S3_SECRET_KEY": ""}, "S3 API Keys"),
    ],
)
def test_what_cannot_work_sends_nothing_until_it_is_done_as_advised(
    world: World, words: list[str], more: dict[str, str], says: str
) -> None:
    code, _, err = world.fill(*words, **more)
    assert code == 2 and says in err
    assert world.r2.requests == []
    assert world.fill()[0] == 0


@pytest.mark.parametrize("verb", [("fill", "--set", "MODELS=big"), ("sweep",)])
def test_keys_that_do_not_open_the_volume_are_named_before_anything_is_fetched(
    world: World, verb: tuple[str, ...]
) -> None:
    code, out, err = world(verb[0], "vol1", *verb[1:], RUNPOD_S3_SECRET_KEY="rps_wrong")
    assert (code, out) == (1, "") and "(403)" in err and "RUNPOD_S3_SECRET_KEY" in err and "rps_wrong" not in err
    assert [request.operation for request in world.r2.requests] == ["head_bucket"] and world.hub.links == 0
    world.r2.stop()
    code, out, err = world(verb[0], "vol1", *verb[1:])
    world.r2.start()
    assert (code, out) == (1, "") and "RunPod's S3 API" in err


def test_models_that_do_not_fit_are_refused_before_anything_is_sent(world: World) -> None:
    world.catalogue(size=200 * 10**9)
    code, _, err = world.fill()
    assert code == 2 and "enlarge" in err
    assert world.r2.requests == []
