"""What a workflow run pushes: its inputs, tags and baked models."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from support.repository import ROOT


def _release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / ".github/release.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_push_without_inputs_pushes_every_tier_under_its_own_tag() -> None:
    found = _release().commands({"TIERS": "consumer prosumer", "IMAGE": "ghcr.io/Someone/Repo"})
    assert found == [
        ["nix", "run", ".#push", "--", "--tier", "consumer", "--to", "ghcr.io/someone/repo"],
        ["nix", "run", ".#sbom", "--", "--tier", "consumer", "--output", "sbom-consumer.json"],
        ["nix", "run", ".#push", "--", "--tier", "prosumer", "--to", "ghcr.io/someone/repo"],
        ["nix", "run", ".#sbom", "--", "--tier", "prosumer", "--output", "sbom-prosumer.json"],
    ]


def test_baked_models_are_fetched_first_and_a_custom_tag_names_one_image() -> None:
    inputs = {"BAKE_WAN_720P": "true", "BAKE_WAN_480P": "false", "BAKE_ILLUSTRIOUS": "true", "TAG": "mine"}
    found = _release().commands({"TIERS": "consumer prosumer", "IMAGE": "r/n", **inputs})
    bake = ["--bake", "wan720p", "--bake", "illustrious"]
    assert found[0] == [
        sys.executable,
        "-m",
        "hearmeman_build",
        "prefetch",
        "--models-only",
        "--tier",
        "consumer",
        *bake,
    ]
    assert found[1][4:] == ["--tier", "consumer", "--to", "r/n", *bake, "--tag", "mine"]
    assert found[3][4:] == ["--tier", "prosumer", "--to", "r/n", *bake, "--tag", "mine-prosumer"]


def test_every_input_of_the_workflow_is_passed_on() -> None:
    text = (ROOT / ".github/workflows/images.yml").read_text()
    release = _release()
    for name in (*release.BAKES, "TAG", "TIERS"):
        given = "image_tag" if name == "TAG" else name.lower()
        assert f"{name}: ${{{{ inputs.{given}" in text
