"""Two worlds, the same store paths: shown by evaluation alone."""

from __future__ import annotations

import json

from hearmeman_build.build import flake_reference
from hearmeman_build.host import ROOT, nix

OUTPUTS = "ps: builtins.mapAttrs (name: p: p.outPath) ps"
DERIVATIONS = "ps: builtins.mapAttrs (name: p: p.drvPath) ps"


def _evaluate(nixpkgs: str, apply: str) -> dict[str, str]:
    overrides = ["--override-input", "nixpkgs", f"path:{ROOT}/{nixpkgs}", "--no-write-lock-file"]
    overrides += ["--override-input", "nix2container", f"path:{ROOT}/nix/offline/nix2container"]
    text = nix("eval", "--json", f"{flake_reference()}#packages.x86_64-linux", *overrides, "--apply", apply)
    found: dict[str, str] = json.loads(text)
    return found


def test_every_layer_has_one_store_path_in_both_worlds() -> None:
    here = _evaluate("nix/offline/nixpkgs", OUTPUTS)
    there = _evaluate("tests/worlds/nixpkgs", OUTPUTS)

    assert here == there
    assert {"image-smoke", "buildroot", "layer-userland-core", "layer-environment-runtime"} <= set(here)


def test_the_other_world_is_really_another() -> None:
    here = _evaluate("nix/offline/nixpkgs", DERIVATIONS)
    there = _evaluate("tests/worlds/nixpkgs", DERIVATIONS)

    assert here["buildroot"] != there["buildroot"]
    assert here["layer-userland-core"] != there["layer-userland-core"]
