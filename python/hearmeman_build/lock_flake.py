"""Writes flake.lock: the hash of ComfyUI's tree and of each node's, at the commits that flake.nix names."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hearmeman_build import locks, sources
from hearmeman_build.errors import BuildError
from hearmeman_build.host import nix, write_atomically

_ADDRESS = re.compile(r"github:(?P<owner>[^/]+)/(?P<repo>[^/]+)/(?P<rev>[0-9a-f]{40})")


def declared(root: Path) -> dict[str, str]:
    """Input -> its address in flake.nix, of every source that an image may hold."""
    inputs = json.loads(nix("eval", "--impure", "--json", "--file", str(root / "flake.nix"), "inputs"))
    return {name: given.get("url", "") for name, given in inputs.items() if name not in sources.NOT_SOURCES}


def stale(root: Path) -> list[str]:
    """Inputs that flake.lock lacks, or has at another commit than flake.nix."""
    locked = sources.locked(root)
    return [name for name, url in declared(root).items() if name not in locked or _address(locked[name]) != url]


def lock(root: Path, say: Callable[[str], None]) -> None:
    """Write the inputs of `root/flake.nix` into `root/flake.lock`; a tree is fetched only where its commit has changed.

    Raises:
        BuildError: an address holds no commit, or a tree cannot be had; nothing is written then.
    """
    text = locked(root, declared(root), say)
    if text != (root / "flake.lock").read_text():
        write_atomically(root / "flake.lock", text.encode())


def locked(root: Path, addresses: Mapping[str, str], say: Callable[[str], None]) -> str:
    """The text of `root/flake.lock` with these sources, and no others.

    Raises:
        BuildError: an address holds no commit, or a tree cannot be had.
    """
    document = locks.read(root, "flake.lock", sources.MERGED)
    nodes, inputs = document["nodes"], document["nodes"]["root"]["inputs"]
    for name in [name for name in inputs if name not in (*addresses, *sources.NOT_SOURCES)]:
        nodes.pop(inputs.pop(name), None)
        say(f"flake.lock: {name} is removed")
    for name, address in addresses.items():
        node = inputs.get(name, "") if inputs.get(name) in nodes else ""
        old = nodes[node]["locked"] if node else {}
        if node and _address(old) == address:
            continue
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise BuildError(
                f"flake.nix gives {name} the address {address!r}: write github:OWNER/REPOSITORY/COMMIT, with all 40 "
                "digits of the commit"
            )
        original = {**match.groupdict(), "type": "github"}
        found = _tree(name, address)
        inputs[name] = node or name
        nodes[node or name] = {
            "flake": False,
            "locked": dict(sorted({**original, **found}.items())),
            "original": original,
        }
        before = f"{old['rev'][:12]} -> " if node else ""
        say(f"flake.lock: {name}: {before}{match['rev'][:12]}, {found['narHash']}")
    document["nodes"] = dict(sorted(nodes.items()))
    nodes["root"]["inputs"] = dict(sorted(inputs.items()))
    return json.dumps(document, indent=2) + "\n"


def _address(locked: Mapping[str, Any]) -> str:
    return f"github:{locked['owner']}/{locked['repo']}/{locked['rev']}"


def _tree(name: str, address: str) -> dict[str, Any]:
    """The tree's NAR hash, and its date where it is known."""
    given = sources.folder()
    if given is not None and (given / name).is_dir():
        return {"narHash": nix("hash", "path", str(given / name))}
    try:
        found = json.loads(nix("flake", "prefetch", "--json", address))
        dated = json.loads(nix("flake", "metadata", "--json", address, "--no-write-lock-file"))
    except (BuildError, subprocess.SubprocessError) as error:
        raise BuildError(
            f"{address} cannot be fetched: name a folder that holds its tree as {name}/ in HEARMEMAN_SOURCES\n{error}"
        ) from error
    return {"narHash": found["hash"], "lastModified": dated["locked"]["lastModified"]}
