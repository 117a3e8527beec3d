"""Moves a source of the image, ComfyUI or a node, to another commit: flake.nix and flake.lock together."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hearmeman_build import locks, sources
from hearmeman_build.errors import BuildError
from hearmeman_build.host import nix, write_atomically

_COMMIT = re.compile(r"[0-9a-f]{40}")


def pin(root: Path, name: str, commit: str, say: Callable[[str], None]) -> None:
    """Pin input `name` to `commit`; its tree's hash comes from HEARMEMAN_SOURCES or from GitHub.

    Raises:
        BuildError: no such input, not a commit, or its tree cannot be had; nothing is written then.
    """
    if not _COMMIT.fullmatch(commit):
        raise BuildError(f"{commit!r} is not a commit: give its 40 hexadecimal digits, not a tag or branch")
    lock = locks.read(root, "flake.lock", sources.CURE)
    node = lock["nodes"]["root"]["inputs"].get(name, "")
    if name in sources.NOT_SOURCES or not node:
        known = ", ".join(sources.locked())
        raise BuildError(f"no input {name} that is part of an image: flake.nix has {known}")
    locked = lock["nodes"][node]["locked"]
    found = _tree(name, locked, commit)
    old = locked["rev"]
    locked.pop("lastModified", None)
    locked |= {"rev": commit, **found}
    lock["nodes"][node]["original"]["rev"] = commit
    flake = (root / "flake.nix").read_text()
    address = f"github:{locked['owner']}/{locked['repo']}/"
    if flake.count(f"{address}{old}") != 1:
        raise BuildError(
            f"flake.nix does not hold {address}{old} once, and flake.lock has that commit: write it into flake.nix first"
        )
    write_atomically(root / "flake.nix", flake.replace(f"{address}{old}", f"{address}{commit}").encode())
    write_atomically(root / "flake.lock", (json.dumps(lock, indent=2) + "\n").encode())
    say(f"{name}: {old[:12]} -> {commit[:12]}, {found['narHash']}")
    if name == "comfyui":
        say("next: compare its requirements.txt with nix/environments/comfyui.toml, then `make lock`,")
        say(
            "`make image image-check TIER=consumer`, and tests/image_check.py --write-classes for tests/comfyui/classes.txt;"
        )
        say(
            "in that image `hearmeman workflows schema` writes workflows/node-schema.json, and `workflows check` what broke"
        )


def _tree(name: str, locked: dict[str, Any], commit: str) -> dict[str, Any]:
    """The tree's NAR hash, and its date where it is known."""
    given = sources.folder()
    if given is not None and (given / name).is_dir():
        hashed = nix("hash", "path", str(given / name))
        return {"narHash": hashed}
    reference = f"github:{locked['owner']}/{locked['repo']}/{commit}"
    try:
        found = json.loads(nix("flake", "prefetch", "--json", reference))
        dated = json.loads(nix("flake", "metadata", "--json", reference, "--no-write-lock-file"))
    except (BuildError, subprocess.SubprocessError) as error:
        raise BuildError(
            f"{reference} cannot be fetched: name a folder that holds its tree as {name}/ in HEARMEMAN_SOURCES\n{error}"
        ) from error
    return {"narHash": found["hash"], "lastModified": dated["locked"]["lastModified"]}
