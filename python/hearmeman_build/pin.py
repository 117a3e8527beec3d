"""Moves a source of the image, ComfyUI or a node, to another commit: flake.nix and flake.lock together."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from hearmeman_build import lock_flake
from hearmeman_build.errors import BuildError
from hearmeman_build.host import write_atomically

_COMMIT = re.compile(r"[0-9a-f]{40}")


def pin(root: Path, name: str, commit: str, say: Callable[[str], None]) -> None:
    """Pin input `name` to `commit`; its tree's hash comes from HEARMEMAN_SOURCES or from GitHub.

    Raises:
        BuildError: no such input, not a commit, or its tree cannot be had; nothing is written then.
    """
    if not _COMMIT.fullmatch(commit):
        raise BuildError(f"{commit!r} is not a commit: give its 40 hexadecimal digits, not a tag or branch")
    addresses = lock_flake.declared(root)
    if name not in addresses:
        raise BuildError(f"no input {name} that is part of an image: flake.nix has {', '.join(addresses)}")
    old = addresses[name]
    new = f"{old.rpartition('/')[0]}/{commit}"
    flake = (root / "flake.nix").read_text()
    if flake.count(old) != 1:
        raise BuildError(f"flake.nix does not hold {old} once: write the address of {name} out, once")
    lock = lock_flake.locked(root, {**addresses, name: new}, say)
    write_atomically(root / "flake.nix", flake.replace(old, new).encode())
    write_atomically(root / "flake.lock", lock.encode())
    if name == "comfyui":
        say("next: compare its requirements.txt with nix/environments/comfyui.toml, then `make lock`, and")
        say(
            "`make image image-check TIER=consumer WRITE=1`, which records the node classes; `workflows check` says what broke"
        )
