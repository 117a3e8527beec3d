#!/usr/bin/env python3
"""What every app starts: the host's command, on the checkout that `nix run` was called in."""

import os
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))
    sys.dont_write_bytecode = True
    os.environ.setdefault("HEARMEMAN_ROOT", str(Path.cwd()))
    # Who has `nix run` has nixpkgs; `HEARMEMAN_WORLD=offline nix run …` builds from what is prefetched.
    os.environ.setdefault("HEARMEMAN_WORLD", "nixpkgs")
    runpy.run_module("hearmeman_build", run_name="__main__")
