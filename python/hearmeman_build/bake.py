"""Fetches the models of a variant with the pod's own fetcher and puts them into the store, where the image finds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hearmeman_build import flake
from hearmeman_build.build import chosen, tier_parts
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT, WORK, nix, write_atomically
from hearmeman_build.registries import check_layer
from hearmeman_build.store import add_files, flat_path, invalid_paths, keep

_NOT_ALLOWED = str.maketrans("@%~ ", "____")
"""Characters that a store name must not hold; nix/models.nix has the same."""


def store_name(file: Mapping[str, Any]) -> str:
    """A model file's name in the store."""
    return str(file["to"]).rpartition("/")[2].translate(_NOT_ALLOWED)


def wanted(catalogue: Path, models: Sequence[str]) -> list[dict[str, Any]]:
    """The files of `models`, with what the catalogue's lock adds.

    Raises:
        BuildError: no such model, or a file whose bytes are not pinned.
    """
    content = tomllib.loads(catalogue.read_text())
    lock_file = catalogue.with_suffix(".lock.json")
    lock = json.loads(lock_file.read_text())["files"] if lock_file.is_file() else {}
    by_id = {model["id"]: model for model in content["model"]}
    missing = [name for name in models if name not in by_id]
    if missing:
        raise BuildError(f"no model {', '.join(missing)} in {catalogue}: it has {', '.join(sorted(by_id))}")
    ids = {identity for name in models for identity in by_id[name]["files"]}
    files = []
    for file in content["file"]:
        if file["id"] in ids:
            merged = {**file, **{k: v for k, v in lock.get(file["id"], {}).items() if v is not None}}
            if not merged.get("sha256"):
                raise BuildError(
                    f"file {file['id']} cannot be baked: neither the catalogue nor its lock has its sha256; "
                    "run `make lock-models` where its source can be reached"
                )
            files.append(merged)
    return files


def _asked(tier: str, baked: Sequence[str]) -> tuple[Path, list[str], list[dict[str, Any]]]:
    """The tier's catalogue, and the models and files of the variants `baked`."""
    parts = tier_parts(tier)
    variants = {
        v["suffix"]: v for v in json.loads(nix("eval", "--json", "--file", f"{flake.folder()}/nix/variants.nix"))
    }
    names = [name for suffix in chosen(tier, parts["variants"], baked) for name in variants[suffix]["models"]]
    return Path(parts["catalogue"]), names, wanted(Path(parts["catalogue"]), names)


def files(tier: str, baked: Sequence[str]) -> list[dict[str, Any]]:
    """The files that the variants `baked` add to `tier`'s image, each with its size, sha256 and source."""
    return _asked(tier, baked)[2]


def check(tier: str, baked: Sequence[str], to: str) -> None:
    """Refuse variants that cannot be built, or that the registry of `to` does not store: each file is one layer.

    Raises:
        BuildError: no such tier or variant, a file is not locked, or it is too large.
    """
    for file in _asked(tier, baked)[2]:
        check_layer(to, file["to"], int(file.get("size") or 0))


def bake(tier: str, baked: Sequence[str], say: Callable[[str], None] = print) -> None:
    """Bring the store the models of `tier`'s variants `baked`; tokens are read from the environment, as in the pod.

    Raises:
        BuildError: a file is not locked, or could not be fetched.
    """
    catalogue, names, files = _asked(tier, baked)
    paths = {store_name(file): flat_path(store_name(file), file["sha256"]) for file in files}
    missing = invalid_paths(list(paths.values()))
    if any(paths[store_name(file)] in missing for file in files):
        say(f"fetching {', '.join(names)} to bake, {sum(file.get('size') or 0 for file in files) / 1e9:.2f} GB")
        folder = WORK / "models"
        _fetch(catalogue, names, folder)
        for file in files:
            add_files({store_name(file): folder / file["to"]})
            if invalid_paths([paths[store_name(file)]]):
                raise BuildError(f"{file['to']} is not what the catalogue locks: run `hearmeman models verify`")
            (folder / file["to"]).unlink()
    keep(list(paths.values()))


def _fetch(catalogue: Path, names: Sequence[str], folder: Path) -> None:
    """Run `hearmeman models fetch` for `names` alone."""
    folder.mkdir(parents=True, exist_ok=True)
    switches = {
        key: "false"
        for model in tomllib.loads(catalogue.read_text())["model"]
        for key, value in model.get("when", {}).items()
        if value in ("true", "false")
    }
    environment = {**os.environ, **switches, "MODELS": "", "MODELS_DIR": str(folder), "VOLUME_DIR": str(folder)}
    environment |= {"MODEL_CATALOGUE": str(catalogue), "PYTHONPATH": str(ROOT / "python")}
    command = [sys.executable, "-m", "hearmeman", "models", "fetch", *names]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    write_atomically(WORK / "bake.log", done.stderr.encode())
    if done.returncode != 0:
        raise BuildError(f"the models could not be fetched: {done.stderr.strip()[-800:]}")
