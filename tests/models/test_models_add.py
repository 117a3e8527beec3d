"""Models by address: named in MODELS or added to a volume, fetched and verified like the catalogue's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.civitai import CivitAI, Version
from fakes.hub import Hub, Repo, safetensors
from fakes.serving import Stored
from fakes.web import Web
from support.fetching import Case

LORA = Stored(safetensors(256, b"a lora"))
NAME = "My Lora v1.safetensors"


@pytest.fixture
def civitai() -> Iterator[CivitAI]:
    versions = {
        12345: Version({NAME: LORA, "other.safetensors": Stored(safetensors(16, b"other"))}),
        12346: Version({NAME: Stored(safetensors(64, b"the next"))}),
        666: Version({"bad.ckpt": Stored(b"\x80\x02.")}, scans={"virusScanResult": "Danger"}),
        777: Version({"new.safetensors": LORA}, scans={"virusScanResult": "Pending", "pickleScanResult": "Pending"}),
        888: Version({"cut.safetensors": LORA}, kilobytes=1.0),
    }
    with CivitAI(versions) as running:
        running.models[55] = (12346, 12345)
        yield running


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({"a/b": Repo({"loras/x.safetensors": LORA})}) as running:
        yield running


@pytest.fixture
def case(tmp_path: Path, civitai: CivitAI, hub: Hub) -> Case:
    return Case(tmp_path, {"CIVITAI_ENDPOINT": civitai.url, "HF_ENDPOINT": hub.url})


def loras(case: Case) -> set[str]:
    return {path.name for path in (case.folder / "loras").iterdir()}


def test_models_takes_addresses_beside_ids(case: Case, hub: Hub, civitai: CivitAI) -> None:
    models = "civitai:12345@loras,hf:a/b/loras/x.safetensors@loras"
    planned = case.run("plan", MODELS=models)
    assert "name not fetched yet" in planned.out.replace("\n", " ") or "civitai-12345" in planned.out
    assert not civitai.requests, "a plan asks no one"
    done = case.run("fetch", MODELS=models)
    assert done.code == 0, done.err
    assert loras(case) == {NAME, "x.safetensors"}
    assert (case.folder / "loras" / NAME).read_bytes() == LORA.data
    asked = len(civitai.requests), len(hub.requests)
    assert case.run("fetch", MODELS=models).code == 0
    assert (len(civitai.requests), len(hub.requests)) == asked


def test_added_ones_are_fetched_now_and_by_every_later_pod_on_the_volume(case: Case, civitai: CivitAI) -> None:
    done = case.run("add", "civitai:12345@loras", MODELS="")
    assert done.code == 0, done.err
    assert f"loras/{NAME}  " in done.out
    assert LORA.sha256[:12] in done.out
    assert loras(case) == {NAME}
    noted = json.loads((case.folder / ".hearmeman/stated/civitai%3A12345%40loras.json").read_text())
    assert (noted["sha256"], noted["size"], noted["name"]) == (LORA.sha256, len(LORA.data), NAME)
    # The next pod: the same volume, and no word of it in its variables.
    (case.folder / "loras" / NAME).unlink()
    assert case.run("fetch", MODELS="").code == 0
    assert loras(case) == {NAME}
    assert "nothing to remove" in case.run("prune", MODELS="").out


def test_removed_ones_are_pruned(case: Case) -> None:
    assert case.run("add", "civitai:12345@loras", "hf:a/b/loras/x.safetensors@loras", MODELS="").code == 0
    wrong = case.run("remove", "civitai:1234@loras", MODELS="")
    assert wrong.code == 2
    assert "did you mean civitai:12345@loras" in wrong.err
    assert case.run("remove", "civitai:12345@loras", MODELS="").code == 0
    assert case.run("prune", "--yes", MODELS="").code == 0
    assert loras(case) == {"x.safetensors"}


def test_two_versions_of_one_name_lie_beside_each_other(case: Case) -> None:
    assert case.run("add", "civitai:12345@loras", "civitai:12346@loras", MODELS="").code == 0
    assert loras(case) == {NAME, "My Lora v1.civitai-12346.safetensors"}
    assert case.run("fetch", MODELS="").code == 0
    assert loras(case) == {NAME, "My Lora v1.civitai-12346.safetensors"}


def test_what_a_scanner_found_dangerous_is_not_fetched_and_what_none_has_seen_is_said(case: Case) -> None:
    done = case.run("add", "civitai:666@loras", MODELS="")
    assert done.code == 1
    assert "CivitAI's virus scan found something dangerous in bad.ckpt" in done.err
    assert "nothing was added" in done.err
    assert case.run("fetch", MODELS="").code == 0
    assert not (case.folder / "loras").exists()
    told = case.run("add", "civitai:777@loras", MODELS="")
    assert told.code == 0
    assert 'said="virus scan: Pending, pickle scan: Pending"' in told.err


def test_civitais_size_is_compared(case: Case) -> None:
    done = case.run("fetch", "civitai:888@loras", MODELS="")
    assert done.code == 75, "the storage may be wrong for now"
    assert not (case.folder / "loras/cut.safetensors").exists()


@pytest.mark.parametrize(
    ("address", "code", "told"),
    [
        ("sd15", 2, "is not an address; enable models of the catalogue with MODELS=sd15"),
        ("civitai:12345@lora", 2, "did you mean loras"),
        (
            "civitai:999@loras",
            1,
            "CivitAI has no version 999: on a model's page it is the number after modelVersionId=",
        ),
        ("civitai:55@loras", 1, "55 is the number of a model, 'Model 55'; its versions are 12346 (v1), 12345 (v1)"),
        ("civitai:12345/nope@loras", 1, f"has no such file; its files are {NAME}, other.safetensors: name one of them"),
        ("hf:a/b/nope.safetensors@loras", 1, "does not exist in that repository"),
        ("hf:a/b/lora/x.safetensors@loras", 1, "(did you mean loras/x.safetensors?): nothing was added"),
        ("hf:a/none/x.safetensors@loras", 1, "does not exist or is private"),
    ],
)
def test_what_cannot_be_added_is_told_and_not_noted(case: Case, address: str, code: int, told: str) -> None:
    done = case.run("add", address, MODELS="")
    assert (done.code, told in done.err) == (code, True), done.err
    assert not (case.volume / ".hearmeman/models/added.json").exists()


def test_what_an_earlier_image_added_and_this_one_does_not_understand_is_said_and_left_alone(case: Case) -> None:
    assert case.run("add", "civitai:12345@loras", MODELS="").code == 0
    noted = case.volume / ".hearmeman/models/added.json"
    noted.write_text(json.dumps({"addresses": ["civitai:1@folder_of_an_old_node", "civitai:12345@loras"]}))
    done = case.run("fetch", MODELS="")
    assert done.code == 0, done.err
    assert "models.added ignored=civitai:1@folder_of_an_old_node" in done.err


def test_a_plain_address_is_verified_by_its_format_and_pinned_by_its_hash(tmp_path: Path) -> None:
    with Web({"x.safetensors": LORA, "page.safetensors": Stored(b"<!doctype html>" * 99)}) as web:
        case = Case(tmp_path)
        assert case.run("add", f"{web.url}/x.safetensors@loras", MODELS="").code == 0
        bad = case.run("fetch", f"{web.url}/page.safetensors@loras", MODELS="")
        assert bad.code == 3
        assert "is a web page, not weights" in bad.err
        assert loras(case) == {"x.safetensors"}
        listed = json.loads(case.run("list", "--json", MODELS="").out)
        assert [(m["id"], m["asked_for"]) for m in listed["models"]] == [(f"{web.url}/x.safetensors@loras", True)]


def test_a_mistake_in_models_ends_with_usage(case: Case) -> None:
    done = case.run("fetch", MODELS="civitai:12345")
    assert done.code == 2
    assert "end it with @FOLDER, one of audio_encoders" in done.err
