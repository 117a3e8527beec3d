"""Two worlds, the same store paths: shown by evaluation alone, for every output of the flake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hearmeman_build import flake, sources
from hearmeman_build.host import ROOT, nix

POETRY2NIX = ["--override-input", "poetry2nix", f"path:{flake.folder()}/tests/worlds/poetry2nix"]
OUTPUTS = "ps: builtins.mapAttrs (name: p: p.outPath) ps"
DERIVATIONS = "ps: builtins.mapAttrs (name: p: p.drvPath) ps"


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI and the nodes: those of HEARMEMAN_SOURCES, or the stand-in and small folders."""
    given = sources.folder()
    print(f"ComfyUI: {given or 'stand-in'}")
    if given is not None:
        return given
    folder = tmp_path_factory.mktemp("sources")
    for name in sources.locked():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f'"""Stands in for {name}."""\nNODE_CLASS_MAPPINGS = {{}}\n')
    shutil.copytree(ROOT / "tests/standin", folder / "comfyui", dirs_exist_ok=True)
    return folder


def _evaluate(nixpkgs: str, comfyui: Path, apply: str) -> dict[str, str]:
    overrides = ["--override-input", "nixpkgs", f"path:{flake.folder()}/{nixpkgs}", "--no-write-lock-file"]
    overrides += ["--override-input", "nix2container", f"path:{flake.folder()}/nix/offline/nix2container"]
    overrides += [*POETRY2NIX, *sources.overrides(comfyui)]
    text = nix("eval", "--json", f"{flake.reference()}#packages.x86_64-linux", *overrides, "--apply", apply)
    found: dict[str, str] = json.loads(text)
    return found


def test_every_layer_has_one_store_path_in_both_worlds(comfyui: Path) -> None:
    here = _evaluate("nix/offline/nixpkgs", comfyui, OUTPUTS)
    there = _evaluate("tests/worlds/nixpkgs", comfyui, OUTPUTS)

    # nixpkgs' alone, for machines that have it.
    assert here == {name: path for name, path in there.items() if name != "hearmeman"}
    images = {"image-smoke", "image-consumer", "image-prosumer", "image-datacenter"}
    layers = {"layer-userland-core", "layer-environment-runtime", "layer-environment-base-1", "layer-comfyui"}
    assert images | layers | {"buildroot"} <= set(here)


def test_the_other_world_is_really_another(comfyui: Path) -> None:
    here = _evaluate("nix/offline/nixpkgs", comfyui, DERIVATIONS)
    there = _evaluate("tests/worlds/nixpkgs", comfyui, DERIVATIONS)

    assert here["buildroot"] != there["buildroot"]
    assert here["layer-userland-core"] != there["layer-userland-core"]


def test_a_changed_node_changes_its_layer_alone(comfyui: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(comfyui, changed, symlinks=True)
    (changed / "comfyui-gguf/new.py").write_text("x = 1\n")
    before = _evaluate("nix/offline/nixpkgs", comfyui, OUTPUTS)
    after = _evaluate("nix/offline/nixpkgs", changed, OUTPUTS)

    differing = {name for name in before if before[name] != after[name]}
    assert differing == {"layer-node-ComfyUI-GGUF", "image-consumer", "image-prosumer", "image-datacenter"}


def test_nix2container_is_given_the_same_blobs() -> None:
    overrides = ["--override-input", "nixpkgs", f"path:{flake.folder()}/nix/offline/nixpkgs", "--no-write-lock-file"]
    overrides += ["--override-input", "nix2container", f"path:{flake.folder()}/tests/worlds/nix2container"]
    words = ["eval", "--json", f"{flake.reference()}#packages.x86_64-linux.image-smoke", *overrides, "--apply"]
    given = json.loads(nix(*words, "image: image.nix2container"))
    assert given["layers"] == json.loads(nix(*words, "image: image.layers"))
    assert (given["name"], given["tag"], given["arch"]) == ("hearmeman-smoke", "smoke", "amd64")


def test_with_nixpkgs_the_commands_are_poetry2nixs() -> None:
    overrides = ["--override-input", "nixpkgs", f"path:{flake.folder()}/tests/worlds/nixpkgs", "--no-write-lock-file"]
    overrides += POETRY2NIX
    package = json.loads(
        nix(
            "eval",
            "--json",
            f"{flake.reference()}#packages.x86_64-linux.hearmeman",
            *overrides,
            "--apply",
            "p: { inherit (p) python locked sources; }",
        )
    )
    assert package["python"] == "/another/python311"
    assert {"boto3", "cyclonedx-python-lib", "pydantic"} <= set(package["locked"])
    assert package["sources"] == ["README.md", "pyproject.toml", "python"]
    words = ["eval", "--json", f"{flake.reference()}#apps.x86_64-linux", *overrides]
    apps = json.loads(nix(*words))
    assert {"doctor", "hearmeman", "pod", "push"} <= set(apps)
    assert apps["push"]["program"].endswith("-hearmeman-push/bin/hearmeman-push")


def test_nix_flake_check_takes_every_output(comfyui: Path) -> None:
    nix(
        "flake",
        "check",
        "--no-build",
        flake.reference(),
        *flake.offline_inputs(),
        *POETRY2NIX,
        *sources.overrides(comfyui),
    )
