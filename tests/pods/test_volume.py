"""Network volumes of the account: listed, made after their price was said, deleted; no answer leaves one that nobody knows of."""

from __future__ import annotations

import json

import pytest

from fakes.runpod import RunPod

from .conftest import Operator


def test_volumes_are_listed(operator: Operator) -> None:
    code, out, _ = operator("volume", "list")
    assert code == 0 and "vol1  v  100 GB  US-KS-2" in out


NEW = ("create", "models", "--size", "1200", "--datacenter", "US-KS-2")


@pytest.mark.parametrize("happens", ["ok", "drop-after"])
def test_a_volume_is_made_once_and_deleted(operator: Operator, runpod: RunPod, happens: str) -> None:
    runpod.volume_changes.append(happens)
    code, out, _ = operator("volume", *NEW, "--yes", "--json")
    made = json.loads(out)
    assert (code, made["id"], made["per_month"]) == (0, "vol2", 80.0)
    assert [one["name"] for one in runpod.volumes.values()] == ["v", "models"]
    assert operator("volume", *NEW, "--yes")[0] == 2, "there is one of this name"
    runpod.volume_changes.append(happens)
    assert operator("volume", "delete", "models", "--yes")[0] == 0
    assert list(runpod.volumes) == ["vol1"]


def test_the_price_is_said_before_anything_is_made_and_what_is_deleted_before_it_is(
    operator: Operator, runpod: RunPod
) -> None:
    code, _, err = operator("volume", *NEW)
    assert code == 2 and "$80.00 a month until it is deleted" in err
    code, _, err = operator("volume", "delete", "vol1")
    assert code == 2 and "v (vol1), 100 GB, and all that is on it" in err
    assert [method for method, _, _ in runpod.requests if method != "GET"] == []


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
def test_what_was_not_done_is_said(
    operator: Operator, runpod: RunPod, words: tuple[str, ...], happens: str, code: int, says: str
) -> None:
    if happens:
        runpod.volume_changes.append(happens)
    got, _, err = operator("volume", *words)
    assert got == code and says in err
    assert list(runpod.volumes) == ["vol1"]


def test_a_volume_where_fill_cannot_work_is_made_with_a_note(operator: Operator) -> None:
    code, _, err = operator("volume", "create", "far", "--size", "10", "--datacenter", "EU-SE-1", "--yes")
    assert code == 0 and "no S3 API in EU-SE-1" in err
