#!/usr/bin/env python3
"""What every app starts: the host's command, on the checkout that `nix run` was called in."""

import os
import runpy
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
"""This flake, in the store."""


def checkout(here: Path) -> Path:
    """The nearest folder at or above `here` that holds this repository; the flake itself where there is none."""
    for folder in (here, *here.parents):
        if all((folder / name).is_file() for name in ("flake.nix", "nix/tiers.nix", "nix/apps/run.py")):
            return folder
    return SOURCE


if __name__ == "__main__":
    sys.path.insert(0, str(SOURCE / "python"))
    sys.dont_write_bytecode = True
    os.environ.setdefault("HEARMEMAN_ROOT", str(checkout(Path.cwd())))
    runpy.run_module("hearmeman_build", run_name="__main__")
