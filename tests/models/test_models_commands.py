"""`hearmeman models plan | list | prune`: what a person reads, and what they are kept from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import Hub, Repo
from fakes.serving import Stored
from support.fetching import Case
from support.repository import ROOT


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({"a/b": Repo({f"{n}.bin": Stored(b"%d" % n * 100_000) for n in range(3)})}) as running:
        yield running


@pytest.fixture
def case(tmp_path: Path, hub: Hub) -> Case:
    """A volume, and three files, each of them a model."""
    made = Case(tmp_path, {"HF_ENDPOINT": hub.url})
    for n in range(3):
        made.add(f"n{n}", {"kind": "huggingface", "repo": "a/b", "path": f"{n}.bin"})
    return made


def test_prune_with_nothing_enabled_removes_nothing_unless_everything_is_said(case: Case) -> None:
    assert case.run("fetch").code == 0
    refused = case.run("prune", "--yes", MODELS="")
    assert refused.code == 2
    assert "all 3 fetched files would go: nothing was removed" in refused.err
    assert "prune --yes --everything` removes it" in case.run("prune", MODELS="").out
    assert len(list((case.folder / "checkpoints").iterdir())) == 3
    assert case.run("prune", "--yes", "--everything", MODELS="").code == 0
    assert not list(case.folder.glob("*/*.bin"))


def test_prune_with_nothing_to_do_says_so_and_no_more(case: Case) -> None:
    assert case.run("fetch").code == 0
    for words in (("prune",), ("prune", "--yes")):
        done = case.run(*words)
        assert (done.code, "nothing to remove" in done.out, "--yes" in done.out) == (0, True, False)


def test_a_plan_does_not_call_an_unknown_size_nothing(case: Case) -> None:
    case.files[0]["size"], case.files[1]["about"] = 100_000_000, 2_000_000_000
    shown = case.run("plan").out
    lines = [line.split() for line in shown.splitlines() if line.startswith("fetch")]
    assert sorted(" ".join(line[1:-2]) for line in lines) == ["100 MB", "?", "~2 GB"]
    assert "3 of 3 to fetch: at least 2.1 GB, 1 of them of unknown size" in shown


def test_a_model_that_is_left_out_says_why_even_if_it_is_the_only_one(case: Case) -> None:
    case.models[0] |= {"tiers": ["datacenter"], "when": {"ENABLE_INFCAM": "true"}}
    for words in (("plan",), ("fetch",)):
        done = case.run(*words, MODELS="", ENABLE_INFCAM="true", GPU_TIER="consumer")
        assert done.code == 0
        assert "n0 is not fetched: it is for tier datacenter" in " ".join((done.out + done.err).split())
        assert "no model is enabled" not in done.out


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_lists_and_plans_fit(case: Case, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    full = {"MODEL_CATALOGUE": str(ROOT / "python/hearmeman/models/catalogue.toml"), "MODELS": "flux1-dev,scail2"}
    everything = {
        "ENABLE_SCAIL": "true",
        "ENABLE_STORYMEM": "true",
        "ENABLE_ILLUSTRIOUS": "true",
        "ENABLE_XTTS": "true",
        "COQUI_TOS_AGREED": "true",
    }
    for words in (["list"], ["plan"], ["show", "zimage-turbo", "wan21-t2v-14b"]):
        out = case.run(*words, **full, **everything, VOLUME_SIZE_GB="1000000").out
        assert len(out.splitlines()) > 20
        assert [line for line in out.splitlines() if len(line) > columns] == []


def test_a_model_that_is_looked_at_is_not_asked_for_by_that(case: Case) -> None:
    asked = case.run("show", "n0", MODELS="n1").out
    assert "no; by MODELS=n0" in asked
    assert "yes, by MODELS=n1" in case.run("show", "n1", MODELS="n1").out
