"""Reads a plugin's arguments inside a Nix build and finds the buildroot's programs."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearmeman_build.errors import BuildError


@dataclass(frozen=True)
class Build:
    """One derivation's arguments."""

    attrs: dict[str, Any]
    """The structured attributes."""

    @property
    def out(self) -> Path:
        """The output path."""
        return Path(self.attrs["outputs"]["out"])

    @property
    def zstd(self) -> list[str]:
        """The buildroot's zstd, started through its own loader: its interpreter is not in the sandbox."""
        root = self.attrs["buildroot"]
        libs = f"{root}/usr/lib/x86_64-linux-gnu"
        return [f"{libs}/ld-linux-x86-64.so.2", "--library-path", libs, f"{root}/usr/bin/zstd"]


def run(build: Callable[[Build], None]) -> None:
    """Run one plugin's `build`; a BuildError ends the derivation with its sentence."""
    # NIX_ATTRS_JSON_FILE names a path outside the sandbox in Nix 2.8.
    top = Path(os.environ["NIX_BUILD_TOP"])
    attrs = json.loads((top / ".attrs.json").read_text())
    for wheel in attrs.get("libraries", ()):
        # An extension module is loaded from a file, never from inside an archive.
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(top / "libraries")
        sys.path.insert(0, str(top / "libraries"))
    try:
        build(Build(attrs))
    except BuildError as error:
        sys.exit(f"error: {error}")
