"""Writes poetry.lock for poetry2nix: Poetry resolves pyproject.toml, with the versions that the image has, without addresses."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearmeman_build import locks
from hearmeman_build.errors import BuildError
from hearmeman_build.host import write_atomically
from hearmeman_build.lock_environments import uv

POETRY = "poetry==2.5.1"

_FILE = re.compile(r'^    \{file = "(?P<name>[^"]+)", hash = "sha256:[0-9a-f]{64}"\},\n', re.MULTILINE)
_SOURCE = re.compile(r'\n\[package\.source\]\n(?:\w+ = "[^"\n]*"\n)+')
_USABLE = re.compile(
    r"-(?:py2\.)?(?:py3|cp311|cp3\d*-abi3)\S*-(?:any|(?:manylinux|macosx)\S*_(?:x86_64|aarch64|arm64|universal2))\.whl$"
)
_KEYS = ("dependencies", "source", "extras", "dev-dependencies")


def fits(root: Path) -> bool:
    """Whether `root/poetry.lock` is of this pyproject.toml and has the image's versions."""
    held = tomllib.loads((root / "poetry.lock").read_text())
    versions = {_normal(package["name"]): package["version"] for package in held["package"]}
    project = tomllib.loads((root / "pyproject.toml").read_text())
    return held["metadata"]["content-hash"] == content_hash(project) and all(
        versions.get(_normal(entry["name"])) == entry["version"] for entry in _runtime(root)
    )


def _runtime(root: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = locks.environments(root, ["runtime"])["runtime"]
    return entries


def lock(root: Path, upgrade: bool = False) -> None:
    """Write `root/poetry.lock`, unless it fits as it is and no `upgrade` is asked for.

    Raises:
        BuildError: Poetry could not resolve pyproject.toml.
    """
    if not upgrade and (root / "poetry.lock").exists() and fits(root):
        return
    text = (root / "pyproject.toml").read_text()
    locked = _runtime(root)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "pyproject.toml")
        # Poetry keeps what it has locked before.
        for content in (pinned(text, {entry["name"]: entry["version"] for entry in locked}), text):
            project.write_text(content + _index())
            command = [uv(), "tool", "run", "--quiet", "--from", POETRY, "poetry", "lock", "--no-interaction"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise BuildError(
                    f"Poetry could not resolve pyproject.toml: {(done.stdout + done.stderr).strip()[-1500:]}\n"
                    "The other locks are written. If your index has what Poetry does not find, name it in PIP_INDEX_URL"
                )
        found = Path(folder, "poetry.lock").read_text()
    write_atomically(root / "poetry.lock", tidy(found, content_hash(tomllib.loads(text))).encode())


def pinned(text: str, versions: Mapping[str, str]) -> str:
    """pyproject.toml's `text` with one version of each of `versions`, direct dependencies or not."""
    head, mark, rest = text.partition("[tool.poetry.dependencies]\n")
    own, blank, rest = rest.partition("\n\n")
    exact = {_normal(name): version for name, version in versions.items()}
    kept = [line for line in own.splitlines() if _normal(line.partition(" ")[0]) not in exact]
    return head + mark + "\n".join([*kept, *(f'{n} = "=={v}"' for n, v in exact.items())]) + blank + rest


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _index() -> str:
    address = os.environ.get("PIP_INDEX_URL", "")
    return f'\n[[tool.poetry.source]]\nname = "index"\nurl = "{address}"\npriority = "primary"\n' if address else ""


def tidy(text: str, content: str) -> str:
    """A lock without addresses, and without wheels for systems that are not ours.

    poetry2nix reads the name of every wheel and stops at a processor that it has not heard of.
    """
    text = _FILE.sub(lambda match: match[0] if _usable(match["name"]) else "", _SOURCE.sub("\n", text))
    return re.sub(r'^content-hash = "[0-9a-f]*"', f'content-hash = "{content}"', text, flags=re.MULTILINE)


def _usable(file: str) -> bool:
    return not file.endswith(".whl") or _USABLE.search(file) is not None


def content_hash(project: Mapping[str, Any]) -> str:
    """Poetry's own hash of what a lock depends on, for a project that is declared under [tool.poetry] alone."""
    poetry = project["tool"]["poetry"]
    relevant = {key: poetry.get(key) for key in _KEYS} | ({"group": poetry["group"]} if "group" in poetry else {})
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()
