#!/usr/bin/env python3
"""Builds, checks and pushes the images that a workflow run asks for, and writes what each is made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from hearmeman_build import bake, record, tags
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT

BAKES = {"BAKE_WAN_480P": "wan480p"}
"""Input of the workflow -> variant of nix/variants.nix. Not wan720p, whose file no layer of ghcr.io holds, nor illustrious,
whose file the catalogue has not locked."""


class Asked:
    """What one run asks for.

    Raises:
        BuildError: no tier is named.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.tiers = list(dict.fromkeys(environ["TIERS"].split()))
        if not self.tiers:
            raise BuildError("TIERS is empty: name one at least, such as consumer")
        self.to = environ["IMAGE"].lower()
        self.baked = [variant for name, variant in BAKES.items() if environ.get(name) == "true"]
        self.custom = environ.get("TAG", "")

    def check(self) -> None:
        """Refuse what cannot be built, stored or recorded, before anything is built.

        Raises:
            BuildError: no such tier or variant, a file is not locked, the registry does not store its layer, the tag is
                none, or images.lock.json is damaged.
        """
        record.read(ROOT)
        for tier in self.tiers:
            bake.check(tier, self.baked, self.to)
            tags.tag(tier, self.baked, self.tag(tier))

    def tag(self, tier: str) -> str:
        """The tag that was asked for; one names one image, so the other tiers carry their name in it."""
        return self.custom if not self.custom or tier == self.tiers[0] else f"{self.custom}-{tier}"

    def commands(self) -> list[list[str]]:
        """The command lines: all tiers are built and checked before the first is pushed."""
        bakes = [word for variant in self.baked for word in ("--bake", variant)]
        python = [sys.executable, "-m", "hearmeman_build"]
        # What no plain address gives is fetched by the pod's own fetcher first.
        found = [[*python, "prefetch", "--models-only", "--tier", self.tiers[0], *bakes]] if bakes else []
        for tier in self.tiers:
            found.append([*python, "build", "--tier", tier, *bakes])
            found.append(["make", "image-check", f"TIER={tier}"])
        for tier in self.tiers:
            given = ["--tag", self.tag(tier)] if self.custom else []
            found.append(["nix", "run", ".#push", "--", "--tier", tier, "--to", self.to, *bakes, *given])
            found.append(["nix", "run", ".#sbom", "--", "--tier", tier, *bakes, "--output", f"sbom-{tier}.json"])
        return found

    def subjects(self, record: Path) -> str:
        """What this run pushed, as sha256sum writes it: the attestation's subjects. `record` has earlier runs' images too."""
        names = {"-".join([tier, *self.baked]) for tier in self.tiers}
        mine = [e for e in json.loads(record.read_text()) if e["repository"] == self.to and e["tier"] in names]
        return "".join(f"{entry['digest'].partition(':')[2]}  {self.to}\n" for entry in mine)


def main() -> int:
    """Run them; the first that fails ends it."""
    try:
        asked = Asked(os.environ)
        asked.check()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for command in asked.commands():
        print("$", *command, flush=True)
        code = subprocess.run(command, check=False).returncode
        if code != 0:
            return code
    Path("subjects.txt").write_text(asked.subjects(Path("images.lock.json")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
