"""What nix/tiers.nix gives each tier: settings that exist, that fit its GPU, and no more than RunPod takes."""

from __future__ import annotations

import json

import pytest

from hearmeman.models.catalogue import read
from hearmeman.settings import Settings, load
from hearmeman_build.host import ROOT, nix

TIERS = json.loads(nix("eval", "--impure", "--json", "--expr", f"import {ROOT}/nix/tiers.nix"))
VRAM = {"consumer": 8, "prosumer": 24, "datacenter": 48}


@pytest.mark.parametrize("tier", sorted(TIERS))
def test_defaults_and_recommendations_are_settings(tier: str) -> None:
    given = {**TIERS[tier]["defaults"], **TIERS[tier]["recommended"]}
    assert {name for name in given if name.lower() not in Settings.model_fields} == set()
    load(given)


@pytest.mark.parametrize("tier", sorted(VRAM))
def test_a_default_turns_nothing_on_and_a_recommendation_does(tier: str) -> None:
    """A download is for the one who pays for the disk to choose."""
    assert [name for name in TIERS[tier]["defaults"] if name.startswith(("ENABLE_", "WAN_"))] == []
    assert [name for name, value in TIERS[tier]["recommended"].items() if value == "true"]


@pytest.mark.parametrize("tier", sorted(VRAM))
def test_what_is_recommended_fits_the_smallest_gpu_of_its_tier(tier: str) -> None:
    given = {**TIERS[tier]["defaults"], **TIERS[tier]["recommended"]}
    chosen = {
        field.upper(): str(value).lower() if isinstance(value, bool) else str(value)
        for field, value in load(given).model_dump(mode="json").items()
    }
    catalogue = read(ROOT / "python/hearmeman/models/catalogue.toml")
    wanted = [model for model in catalogue.models if model.when and all(chosen[k] == v for k, v in model.when.items())]
    assert len(wanted) > 2
    least = {model.id: min(v for v in (model.vram_gb, model.vram_gb_offload) if v) for model in wanted if model.vram_gb}
    assert {name: gb for name, gb in least.items() if gb > VRAM[tier]} == {}


def test_the_tiers_differ_as_the_specification_says() -> None:
    assert TIERS["datacenter"]["defaults"]["QWEN_EDIT_MODEL"] == "full"
    assert TIERS["datacenter"]["defaults"]["GPU_MEMORY_MODE"] == "full"
    assert TIERS["prosumer"]["recommended"]["WAN22_DISTILL_VARIANT"] == "turbodiffusion"
    assert {"GPU_TIER": "auto"}.items() <= TIERS["consumer"]["defaults"].items()
