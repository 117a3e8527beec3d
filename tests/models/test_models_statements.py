"""What a source states is compared with what is there before the first "present", and kept on the volume."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import Hub, Repo
from fakes.serving import Stored
from fakes.web import Web
from support.fetching import Case

RIGHT, OTHER = Stored(b"right" * 1000), Stored(b"other" * 1000)
FIRST, SECOND = "1" * 40, "2" * 40
HF = {"kind": "huggingface", "repo": "a/b", "path": "x.bin"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({"a/b": Repo({"x.bin": RIGHT}, commit=FIRST)}) as running:
        yield running


@pytest.fixture
def case(tmp_path: Path, hub: Hub) -> Case:
    return Case(tmp_path, {"HF_ENDPOINT": hub.url})


def there(case: Case, content: bytes, id: str = "x") -> Path:
    place = case.folder / f"checkpoints/{id}.bin"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def test_a_file_that_was_there_before_is_compared_once_with_its_source(case: Case, hub: Hub) -> None:
    case.add("x", HF)
    place = there(case, RIGHT.data)
    assert case.run("fetch").code == 0
    assert [request.method for request in hub.requests] == ["HEAD"], "not a byte of it was fetched"
    assert case.run("fetch").code == 0
    assert len(hub.requests) == 1, "what was stated is kept"
    assert place.read_bytes() == RIGHT.data


@pytest.mark.parametrize("content", [OTHER.data, RIGHT.data[:1000], b"<html>"])
def test_a_file_that_is_something_else_is_moved_aside_by_name_and_fetched(case: Case, content: bytes) -> None:
    case.add("x", HF, about=5000)
    place = there(case, content)
    done = case.run("fetch")
    assert done.code == 0, done.err
    assert place.read_bytes() == RIGHT.data
    assert "model.replaced file=checkpoints/x.bin kept_as=.hearmeman/replaced/checkpoints/x.bin" in done.err
    assert (case.folder / ".hearmeman/replaced/checkpoints/x.bin").read_bytes() == content


def test_what_cannot_be_compared_now_is_used_and_compared_later(case: Case, hub: Hub) -> None:
    case.add("x", HF)
    place = there(case, OTHER.data)
    done = case.run("fetch", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.code == 0
    assert "model.uncompared" in done.err
    assert "was not compared" in case.run("verify", HF_ENDPOINT="http://127.0.0.1:9").out
    assert place.read_bytes() == OTHER.data
    assert case.run("fetch").code == 0
    assert place.read_bytes() == RIGHT.data


def test_verify_asks_the_source_about_what_no_one_has_compared(case: Case) -> None:
    case.add("x", HF, about=5000)
    there(case, OTHER.data)
    done = case.run("verify")
    assert done.code == 3
    assert "has the sha256" in done.out


def test_the_main_branch_is_recorded_at_the_first_fetch_and_kept(case: Case, hub: Hub) -> None:
    case.add("x", HF)
    place = case.folder / "checkpoints/x.bin"
    assert case.run("fetch").code == 0
    hub.repos["a/b"] = Repo({"x.bin": OTHER}, commit=SECOND, older={FIRST: {"x.bin": RIGHT}})
    place.unlink()
    assert case.run("fetch").code == 0
    assert place.read_bytes() == RIGHT.data, "the commit of the first fetch, not the branch"
    assert any(f"/resolve/{FIRST}/" in request.path for request in hub.requests)
    assert case.run("lock", "x", MODEL_CATALOGUE=str(case.volume / "catalogue.toml")).code == 0
    assert case.run("fetch").code == 0
    assert place.read_bytes() == OTHER.data, "`models lock` takes the new one"


def test_a_named_model_is_locked_alone(case: Case, hub: Hub) -> None:
    case.add("x", HF)
    case.add("y", HF)
    assert case.run("lock", "x").code == 0
    lock = json.loads((case.volume / "catalogue.lock.json").read_text())
    assert set(lock["files"]) == {"x"}
    assert case.run("lock").code == 0
    lock = json.loads((case.volume / "catalogue.lock.json").read_text())
    assert set(lock["files"]) == {"x", "y"}


def test_a_plain_address_is_pinned_by_the_hash_of_what_was_fetched(tmp_path: Path) -> None:
    with Web({"x.bin": RIGHT}) as web:
        case = Case(tmp_path)
        place = case.add("x", {"kind": "url", "url": f"{web.url}/x.bin"})
        assert case.run("fetch").code == 0
        web.files["x.bin"] = OTHER
        place.unlink()
        done = case.run("fetch")
        assert done.code == 1
        assert "run `hearmeman models lock` to take the new one" in done.err or "models lock" in done.err
        assert not place.exists()


def test_the_images_lock_is_not_written_beside_it_but_onto_the_volume(
    case: Case, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.add("x", HF)
    assert case.run("fetch").code == 0
    hub.repos["a/b"] = Repo({"x.bin": OTHER}, commit=SECOND, older={FIRST: {"x.bin": RIGHT}})
    monkeypatch.setattr("hearmeman.models.lock_command.IMAGE_CATALOGUE", str(case.volume / "catalogue.toml"))
    done = case.run("lock")
    assert done.code == 0, done.err
    assert not (case.volume / "catalogue.lock.json").exists()
    assert case.run("fetch").code == 0
    assert (case.folder / "checkpoints/x.bin").read_bytes() == OTHER.data
    chosen = json.loads((case.folder / ".hearmeman/stated/x.json").read_text())
    assert (chosen["revision"], chosen["chosen"]) == (SECOND, True)


def test_a_snapshot_keeps_its_empty_files_and_comes_over_several_pages(case: Case, hub: Hub) -> None:
    files = {f"part/{n}.bin": Stored(b"%d" % n * 100) for n in range(5)} | {"part/__init__.py": Stored(b"", lfs=False)}
    hub.repos["a/s"], hub.page = Repo(files), 2
    case.add("s", {"kind": "huggingface-snapshot", "repo": "a/s"}, "vae/S")
    assert case.run("fetch").code == 0
    found = {str(p.relative_to(case.folder / "vae/S")): p.read_bytes() for p in (case.folder / "vae/S").rglob("*.*")}
    assert found == {name: stored.data for name, stored in files.items()}
    asked = len(hub.requests)
    assert case.run("fetch").code == 0
    assert len(hub.requests) == asked


def test_a_renamed_repository_is_followed(case: Case, hub: Hub) -> None:
    hub.repos |= {"old/name": Repo({}, moved_to="a/b")}
    place = case.add("x", {**HF, "repo": "old/name"})
    assert case.run("fetch").code == 0
    assert place.read_bytes() == RIGHT.data


def test_a_token_whose_account_accepted_nothing_is_told_what_to_accept(case: Case, hub: Hub) -> None:
    hub.repos["a/b"] = Repo({"x.bin": RIGHT}, gated=True)
    hub.unaccepted = "hf_other"
    case.add("x", HF)
    done = case.run("fetch", HF_TOKEN="hf_other")
    assert done.code == 1
    assert "the account of HF_TOKEN must accept it" in done.err


def test_the_whole_catalogue_can_be_locked_against_a_hub_that_has_it(
    case: Case, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who runs `models lock --all` gets a commit for everything that the Hub has."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # One file of the catalogue is not on the Hub.
    from hearmeman.models.catalogue import CivitAI, HuggingFace, Snapshot, read
    from support.repository import ROOT

    catalogue = ROOT / "python/hearmeman/models/catalogue.toml"
    known = read(catalogue)
    for file in known.files:
        if isinstance(file.source, HuggingFace):
            repo = hub.repos.setdefault(file.source.repo, Repo({}, commit=FIRST))
            hub.repos[file.source.repo] = Repo({**repo.files, file.source.path: Stored(file.id.encode())}, commit=FIRST)
        elif isinstance(file.source, Snapshot):
            named = {name.replace("*", "any"): RIGHT for name in file.source.include}
            files = {"config.json": Stored(b"{}", lfs=False), "m.bin": RIGHT, **named}
            hub.repos[file.source.repo] = Repo(files, commit=FIRST)
    for file in known.files:
        revision = getattr(file.source, "revision", "main")
        if revision != "main":
            repo = hub.repos[file.source.repo]  # type: ignore[union-attr]
            hub.repos[file.source.repo] = Repo(repo.files, commit=revision)  # type: ignore[union-attr]
    out = case.volume / "out.json"
    done = case.run(
        "lock", "--all", "--out", str(out), MODELS="", MODEL_CATALOGUE=str(catalogue), CIVITAI_ENDPOINT=hub.url
    )
    lock = json.loads(out.read_text())
    hubs = {file.id for file in known.files if isinstance(file.source, HuggingFace)}
    assert {name for name, found in lock["files"].items() if found["revision"]} >= hubs
    assert set(lock["snapshots"]) == {file.id for file in known.files if isinstance(file.source, Snapshot)}
    civitai = {file.id for file in known.files if isinstance(file.source, CivitAI)}
    assert civitai.isdisjoint(lock["files"]), "the fake has no CivitAI"
    assert done.code == 3
