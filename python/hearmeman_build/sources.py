"""Gives ComfyUI and the custom nodes from a folder of the operator's, where GitHub cannot be reached."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from hearmeman_build import locks
from hearmeman_build.errors import BuildError
from hearmeman_build.flake import path_reference
from hearmeman_build.host import ROOT, nix

NOT_SOURCES = ("nixpkgs", "nix2container", "poetry2nix")
"""Inputs that are not part of an image."""
MERGED = "restore it from git, `git checkout HEAD flake.lock`, then `make lock`, which follows flake.nix"
"""What to do where flake.lock holds none."""


def folder() -> Path | None:
    """The folder that HEARMEMAN_SOURCES names: one subfolder for each input of flake.nix, named like it.

    Raises:
        BuildError: it is not there.
    """
    named = os.environ.get("HEARMEMAN_SOURCES", "")
    if not named:
        return None
    path = Path(named).resolve()
    if not path.is_dir():
        raise BuildError(f"HEARMEMAN_SOURCES={named} is not a folder: name one that holds ComfyUI and the nodes")
    return path


def locked(root: Path = ROOT) -> dict[str, dict[str, str]]:
    """Input -> its locked reference, of every source that an image may hold."""
    nodes = locks.read(root, "flake.lock", MERGED)["nodes"]
    named = {name: node for name, node in nodes["root"]["inputs"].items() if name not in NOT_SOURCES}
    # One that a merge lost is as one that was never there: `lock_flake.stale` names both.
    return {name: nodes[node]["locked"] for name, node in named.items() if node in nodes}


def differing(given: Path) -> list[str]:
    """Inputs whose tree in `given` is not the locked one."""
    return [
        name
        for name, lock in locked().items()
        if (given / name).is_dir() and tree_hash(given / name) != lock["narHash"]
    ]


@cache
def overrides(given: Path | None) -> tuple[str, ...]:
    """Nix's arguments for the sources in `given`.

    A tree with the locked hash goes into the store, where Nix finds it for the locked reference; any other replaces
    the input, and the image says so.
    """
    words: list[str] = []
    if given is None:
        return ()
    for name, lock in locked().items():
        tree = given / name
        if not tree.is_dir():
            continue
        # Nix 2.8 asks the network for a reference without a date, even when the store holds it.
        if tree_hash(tree) == lock["narHash"] and "lastModified" in lock:
            nix("store", "add-path", "--name", "source", str(tree))
        else:
            words += ["--override-input", name, path_reference(tree)]
    return tuple(words)


@cache
def tree_hash(tree: Path) -> str:
    """A folder's NAR hash, SRI form."""
    return nix("hash", "path", str(tree))
