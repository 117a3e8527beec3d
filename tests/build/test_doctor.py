"""What a machine lacks is said before anything is fetched, each with what to do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hearmeman_build.doctor import Machine, findings, locked_bytes, look
from hearmeman_build.errors import BuildError

GOOD = Machine(
    commands={"git": True, "skopeo": True},
    nix_version="2.28.3",
    config={"experimental-features": "flakes nix-command", "sandbox": "true"},
    namespaces=True,
    free=50 * 10**9,
    needed=20 * 10**9,
    github=True,
    substituters={"https://cache.example": True},
    fetchers={},
)


def test_a_machine_that_has_everything() -> None:
    assert all(one.fine and not one.fix for one in findings(GOOD, nixpkgs_world=True))


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        ({"nix_version": ""}, "nix", "install Nix 2.8 or later"),
        ({"nix_version": "2.3.16"}, "nix", "install Nix 2.8 or later"),
        (
            {"config": {"experimental-features": "", "sandbox": "true"}},
            "features",
            "experimental-features = nix-command",
        ),
        ({"config": {"experimental-features": "flakes nix-command", "sandbox": "false"}}, "sandbox", "sandbox = true"),
        ({"namespaces": False}, "sandbox", "user namespaces"),
        ({"free": 19 * 10**9}, "disk", "make clean"),
        ({"github": False}, "github", "HEARMEMAN_SOURCES=FOLDER"),
        ({"substituters": {"https://cache.example": False}}, "cache https://cache.example", "substituters"),
        ({"commands": {"skopeo": False}}, "skopeo", "install skopeo"),
        ({"fetchers": {"apt": False, "pip": True}}, "apt", "`nix run .#doctor`"),
        ({"fetchers": {"apt": True, "pip": False}}, "pip", "./setup.sh demo"),
    ],
)
def test_what_is_missing_is_named_with_its_fix(changes: dict[str, Any], what: str, fix: str) -> None:
    found = [one for one in findings(dataclasses.replace(GOOD, **changes), nixpkgs_world=True) if not one.fine]
    assert [one.what for one in found] == [what]
    assert fix in found[0].fix


def test_with_the_stand_ins_nix_needs_no_settings_of_the_machine() -> None:
    assert all(one.fine for one in findings(dataclasses.replace(GOOD, config={}, github=None), nixpkgs_world=False))


def test_this_machine_can_build_the_smoke_image() -> None:
    here = look("smoke")
    assert here.github is None, "nothing of the smoke image is on GitHub"
    assert here.needed == 3 * locked_bytes(["core"], ["runtime"]) > 10**8
    assert {one.what: one.found for one in findings(here, False) if not one.fine} == {}
    with pytest.raises(BuildError, match="no tier"):
        look("nope")
