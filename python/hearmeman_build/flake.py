"""The repository as Nix reads it: a copy of its files at a plain path, so that no checkout is too odd to build."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from hearmeman_build.host import ROOT, in_nixpkgs_world

_PLAIN = re.compile(r"[A-Za-z0-9/._+-]+")
"""Paths that Nix takes in flake references and expressions as they are."""

_MADE = {".git", ".work", ".venv", ".env", "result", "workspace", "dist"}
_MADE |= {".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}
"""What runs and people make in the top folder: no part of the repository, and no file for the Nix store. As .gitignore."""


@cache
def folder() -> Path:
    """A copy of the repository that holds what git tracks, or without git what no run has made; gone at exit.

    Nix copies a whole folder where it cannot ask git, sockets and downloads included, and takes a blank or `#` in a path
    for the end of it.
    """
    copy = _plain_folder()
    for name in files(ROOT):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    return copy


def files(root: Path) -> list[str]:
    """The repository's files, relative to `root`."""
    if (root / ".git").exists() and shutil.which("git"):
        # A checkout of another user's, in a container for one, is read all the same.
        command = ["git", "-c", "safe.directory=*", "-C", str(root), "ls-files", "-z"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return [name for name in done.stdout.split("\0") if name and os.path.lexists(root / name)]
    found = []
    for parent, folders, names in os.walk(root):
        top = Path(parent) == root
        folders[:] = [name for name in folders if not _made(name, top)]
        paths = [Path(parent, name) for name in [*names, *folders] if not _made(name, top)]
        found += [str(p.relative_to(root)) for p in paths if p.is_symlink() or p.is_file()]
    return sorted(found)


def _made(name: str, top: bool) -> bool:
    if top and (name in _MADE or name.startswith("result-")):
        return True
    return name == "__pycache__" or name.endswith(".pyc")


def reference() -> str:
    """This repository as a flake."""
    return f"path:{folder()}"


@cache
def path_reference(path: Path) -> str:
    """Any folder as a flake reference; one at an odd path is copied, since Nix 2.8 does not read %20 in a path."""
    if not _PLAIN.fullmatch(str(path)):
        path = Path(shutil.copytree(path, _plain_folder() / "source", symlinks=True))
    return f"path:{path}"


def _plain_folder() -> Path:
    """A new folder at a plain path, gone at exit."""
    below = next(place for place in (tempfile.gettempdir(), "/tmp", "/var/tmp") if _PLAIN.fullmatch(place))
    folder = Path(tempfile.mkdtemp(prefix="hearmeman-", dir=below))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def offline_inputs() -> list[str]:
    """The overrides that put the stand-ins in place of nixpkgs and nix2container; none with the real ones."""
    if in_nixpkgs_world():
        return []
    words = ["--no-write-lock-file"]
    for name in ("nixpkgs", "nix2container"):
        words += ["--override-input", name, f"path:{folder()}/nix/offline/{name}"]
    return words
