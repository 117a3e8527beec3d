"""Prefetches and builds a tier's image on this machine, and reads what was built."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearmeman_build import flake, lock_flake, locks, progress, sources
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT, WORK, nix, store_file
from hearmeman_build.prefetch import prefetch


@dataclass(frozen=True)
class Image:
    """A built image."""

    layout: Path
    """The OCI layout on this machine's disk."""
    digest: str
    """The manifest's digest."""
    layers: list[dict[str, Any]]
    """The manifest's layer descriptors, lowest first."""
    size: int
    """Bytes of all compressed layers."""


def tier_parts(tier: str) -> dict[str, Any]:
    """The userland groups, environments and source trees (folder in the image -> input) of a tier, from nix/tiers.nix.

    Raises:
        BuildError: there is no such tier; the message lists those there are.
    """
    tiers = json.loads(nix("eval", "--impure", "--json", "--expr", _TIERS.replace("@ROOT@", str(flake.folder()))))
    if tier not in tiers:
        raise BuildError(f"no tier {tier!r}: nix/tiers.nix has {', '.join(sorted(tiers))}")
    parts: dict[str, Any] = tiers[tier]
    return parts


_TIERS = """
let
  variants = import @ROOT@/nix/variants.nix;
  renamed = f: set: builtins.listToAttrs (
    map (name: { name = f name; value = set.${name}; }) (builtins.attrNames set)
  );
in
builtins.mapAttrs (name: tier: {
  inherit (tier) environments;
  userland = builtins.concatLists tier.userland;
  catalogue = toString tier.catalogue;
  variants = map (v: v.suffix) (
    builtins.filter (v: if v ? tiers then builtins.elem name v.tiers else tier.comfyui != null) variants
  );
  trees =
    (if tier.comfyui == null then { } else { "opt/comfyui" = tier.comfyui; })
    // renamed (n: "opt/comfyui-nodes/${n}") tier.nodes
    // renamed (n: "opt/env/${tier.comfyuiEnvironment}/lib/python3.11/site-packages/${n}") tier.packages;
}) (import @ROOT@/nix/tiers.nix)
"""


def prefetch_tier(tier: str, say: Any = print) -> None:
    """Bring the store what `tier`'s image is made of."""
    parts = tier_parts(tier)
    if parts["trees"]:
        # Evaluation asks for ComfyUI and the nodes: now, and not after gigabytes of packages.
        _with_inputs("eval", "--raw", f"{flake.reference()}#packages.x86_64-linux.image-{tier}.outPath")
    prefetch(ROOT, parts["userland"], parts["environments"], say)


def _with_inputs(*words: str) -> str:
    """Run Nix on this flake, its inputs in place.

    Raises:
        BuildError: ComfyUI or a node cannot be fetched, or Nix failed.
    """
    inputs = [*flake.offline_inputs(), *sources.overrides(sources.folder())]
    try:
        if words[0] == "build":
            progress.build([*words[1:], *inputs])
            return ""
        return nix(*words, *inputs)
    except BuildError as error:
        # Nix names an address; what is missing is an input, and that has a fix.
        if stale := lock_flake.stale(ROOT):
            raise BuildError(
                f"flake.lock does not have {', '.join(stale)} as flake.nix does: run `make lock`"
            ) from error
        unreachable = [name for name, lock in sources.locked().items() if f"/{lock['repo']}/" in str(error)]
        if unreachable:
            raise BuildError(
                f"{', '.join(unreachable)} cannot be fetched from GitHub: give SOURCES=FOLDER to make, or set "
                f"HEARMEMAN_SOURCES, to a folder with a subfolder for each of {', '.join(sources.locked())}"
            ) from error
        raise


def build_output(attribute: str, *flags: str) -> Path:
    """Build one output of the flake; its path on disk."""
    link = WORK / "results" / attribute
    link.parent.mkdir(parents=True, exist_ok=True)
    _with_inputs("build", f"{flake.reference()}#{attribute}", "-o", str(link), *flags)
    return store_file(str(link.readlink()))


def build_image(tier: str, baked: Sequence[str] = ()) -> Image:
    """Build `tier`'s image from what is prefetched, with the models that `baked` names (nix/variants.nix).

    Raises:
        BuildError: no such tier or variant, a part is not prefetched, or the build failed.
    """
    parts = tier_parts(tier)
    # Nix says of a lock that a merge broke only where its parser stopped.
    locks.packages(locks.userland(ROOT), parts["userland"])
    locks.environments(ROOT, parts["environments"])
    try:
        return read_image(build_output("-".join(["image", tier, *chosen(tier, parts["variants"], baked)])))
    except BuildError as error:
        command = " ".join(["nix/apps/prefetch", "--tier", tier, *(f"--bake {name}" for name in baked)])
        raise BuildError(explained(error, command), error.said) from error


def explained(error: BuildError, command: str) -> str:
    """Why a build failed, and where a file is missing or damaged, that `command` fetches it."""
    if lacking := re.search(r"not-in-the-store/[^/]+/([^']+)'", error.said):
        return f"{lacking[1]} is not in the store: run `{command}`, then the same command again"
    if "failed due to signal" in error.said:
        return (
            f"{error}\na damaged file in the store may be the cause: run `{command}`, which fetches those again, then "
            "the same command again"
        )
    # A builder does not know which image it builds for.
    return str(error).replace("`make prefetch`", f"`{command}`")


def chosen(tier: str, known: Sequence[str], baked: Sequence[str]) -> list[str]:
    """The variants `baked` in the order of their suffixes.

    Raises:
        BuildError: the tier has no such variant; the message lists those it has.
    """
    unknown = sorted(set(baked) - set(known))
    if unknown:
        raise BuildError(f"no variant {', '.join(unknown)} of tier {tier}: nix/variants.nix has {', '.join(known)}")
    return [name for name in known if name in baked]


def read_image(layout: Path) -> Image:
    """Read a layout's index and manifest."""
    [entry] = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads((layout / "blobs/sha256" / entry["digest"].partition(":")[2]).read_text())
    layers = manifest["layers"]
    return Image(layout, entry["digest"], layers, sum(layer["size"] for layer in layers))
