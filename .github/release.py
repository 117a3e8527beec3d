#!/usr/bin/env python3
"""Builds and pushes the images that a workflow run asks for, and writes what each is made of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

BAKES = {"BAKE_WAN_720P": "wan720p", "BAKE_WAN_480P": "wan480p", "BAKE_ILLUSTRIOUS": "illustrious"}
"""Input of the workflow -> variant of nix/variants.nix."""


def commands(environ: Mapping[str, str]) -> list[list[str]]:
    """The command lines of one run: for each tier a push and a list of parts."""
    tiers = environ["TIERS"].split()
    bake = [word for name, variant in BAKES.items() if environ.get(name) == "true" for word in ("--bake", variant)]
    custom = environ.get("TAG", "")
    found = []
    for tier in tiers:
        # One custom tag names one image: the other tiers carry their name in it.
        tag = custom if not custom or tier == tiers[0] else f"{custom}-{tier}"
        push = ["nix", "run", ".#push", "--", "--tier", tier, "--to", environ["IMAGE"].lower(), *bake]
        found.append([*push, "--tag", tag] if tag else push)
        found.append(["nix", "run", ".#sbom", "--", "--tier", tier, "--output", f"sbom-{tier}.json"])
    if bake:
        # What no plain address gives is fetched by the pod's own fetcher first.
        prefetch = [sys.executable, "-m", "hearmeman_build", "prefetch", "--models-only", "--tier", tiers[0], *bake]
        found.insert(0, prefetch)
    return found


def main() -> int:
    """Run them; the first that fails ends it."""
    for command in commands(os.environ):
        print("$", *command, flush=True)
        code = subprocess.run(command, check=False).returncode
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
