#!/usr/bin/env python3
"""What every app starts: the host's command, on the checkout that `nix run` was called in."""

from __future__ import annotations

import importlib.metadata
import os
import runpy
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
"""This flake, in the store."""


def is_checkout(folder: Path) -> bool:
    """Whether `folder` holds this repository."""
    return all((folder / name).is_file() for name in ("flake.nix", "nix/tiers.nix", "nix/apps/run.py"))


def checkout(here: Path) -> Path:
    """The nearest folder at or above `here` that holds this repository; the flake itself where there is none."""
    return next((folder for folder in (here, *here.parents) if is_checkout(folder)), SOURCE)


MODULES = {"hearmeman": "hearmeman", "pod": "hearmeman_pod", "xtts-vo-gen": "hearmeman_voice.vo_gen"}
"""Commands of their own; every other name is a subcommand of the build's."""

WITH_LIBRARIES = ("hearmeman", "hearmeman_pod")
"""Those that import more than Python has."""


def locked_python(root: Path) -> Path | None:
    """The Python of the checkout's own environment, which has the libraries; None if this is one that has them."""
    python = root / ".venv/bin/python"
    inside = Path(sys.prefix) == root / ".venv" or os.environ.get("HEARMEMAN_WORLD") == "nixpkgs"
    return None if inside or not python.exists() else python


def lacking() -> list[str]:
    """The libraries of pyproject.toml that this Python does not have."""
    import tomllib

    wanted = tomllib.loads((SOURCE / "pyproject.toml").read_text())["tool"]["poetry"]["dependencies"]
    there = {distribution.name.lower().replace("_", "-") for distribution in importlib.metadata.distributions()}
    return [name for name in wanted if name != "python" and name.replace("_", "-") not in there]


def main() -> None:
    """Run the command that the first word names."""
    root = Path(os.environ.setdefault("HEARMEMAN_ROOT", str(checkout(Path.cwd()))))
    if not is_checkout(root):
        sys.exit(f"error: HEARMEMAN_ROOT={root} holds no hearmeman: unset it, or name a checkout")
    python = locked_python(root)
    if python is not None:
        os.execv(python, [str(python), __file__, *sys.argv[1:]])
    if sys.version_info < (3, 11):  # noqa: UP036 (the machine's own python3 may be older)
        sys.exit(f"error: this is Python {sys.version.split()[0]}, and 3.11 or later is needed: install that")
    sys.path.insert(0, str(SOURCE / "python"))
    sys.dont_write_bytecode = True
    module = MODULES.get(sys.argv[1] if len(sys.argv) > 1 else "", "hearmeman_build")
    if module in WITH_LIBRARIES and (missing := lacking()):
        sys.exit(f"error: {', '.join(missing)}: not installed here: run `./setup.sh test` in {root}, then try again")
    if module != "hearmeman_build":
        del sys.argv[1]
    runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    main()
