"""The plan is a function of settings, catalogue and disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearmeman.models.catalogue import Catalogue, CatalogueError, read
from hearmeman.models.plan import Disk, DiskTooSmallError, Found, Record, asked_for, check_space, make_plan
from hearmeman.settings import Settings

SMOKE = Path(__file__).parent / "smoke/catalogue.toml"
TO, SIZE = "checkpoints/tiny.safetensors", 4194384


@pytest.fixture
def catalogue() -> Catalogue:
    return read(SMOKE)


def disk(found: Found | None = None, record: Record | None = None, free: int = 10**12) -> Disk:
    return Disk({TO: found} if found else {}, {TO: record} if record else {}, {}, free)


@pytest.mark.parametrize(
    ("found", "record", "action"),
    [
        (None, None, "fetch"),
        (Found(SIZE, 1), None, "verify"),
        (Found(SIZE - 1, 1), None, "fetch"),
        (Found(SIZE, 1), Record(SIZE, 2, "bc4379b0"), "verify"),
        (Found(SIZE, 1), Record(SIZE, 1, "another"), "fetch"),
        (Found(SIZE, 1), Record(SIZE, 1, read(SMOKE).files[0].sha256 or ""), "present"),
    ],
)
def test_what_is_done_about_a_file(
    catalogue: Catalogue, found: Found | None, record: Record | None, action: str
) -> None:
    plan = make_plan(catalogue, catalogue.models, disk(found, record))
    assert [step.action for step in plan.steps] == [action]


def test_what_does_not_fit_is_refused_with_the_figures(catalogue: Catalogue) -> None:
    plan = make_plan(catalogue, catalogue.models, disk(free=1_000_000))
    with pytest.raises(DiskTooSmallError, match=r"0\.00 GB free.*nothing was fetched"):
        check_space(plan, "/workspace/ComfyUI/models")


def test_a_full_disk_is_no_matter_when_all_is_present(catalogue: Catalogue) -> None:
    record = Record(SIZE, 1, catalogue.files[0].sha256 or "")
    check_space(make_plan(catalogue, catalogue.models, disk(Found(SIZE, 1), record, free=0)), "/m")


def test_only_what_is_asked_for(catalogue: Catalogue) -> None:
    assert asked_for(catalogue, Settings()) == ()
    assert [model.id for model in asked_for(catalogue, Settings(models=" smoke,"))] == ["smoke"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('to = "checkpoints/', 'to = "../', "file smoke-tiny: to"),
        ('to = "checkpoints/tiny', 'to = "tiny', "takes FOLDER/NAME"),
        ("size = 4194384", "size = -1", "greater than 0"),
        ('files = ["smoke-tiny"]', 'files = ["other"]', "unknown file other"),
        ("[[model]]", "[[modell]]", "modell"),
        ("[[file]]", "[[file", "not TOML"),
        ('kind = "huggingface"', 'kind = "ftp"', "kind"),
    ],
)
def test_a_wrong_catalogue_is_refused_by_name(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(SMOKE.read_text().replace(old, new, 1))
    with pytest.raises(CatalogueError, match=told):
        read(path)
