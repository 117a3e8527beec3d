"""Writes nix/environments/lock.json: uv resolves each <name>.toml and one wheel is chosen for each package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hearmeman_build.errors import BuildError
from hearmeman_build.host import write_atomically
from hearmeman_build.wheel import parse

GLIBC_MINOR = 36
"""Debian 12's glibc is 2.36: newer manylinux wheels do not load."""


def rank(file: str) -> tuple[int, ...] | None:
    """How well a wheel suits CPython 3.11 on Debian 12 x86_64; None if not at all, larger is better."""
    wheel = parse(file)
    best = None
    for platform in wheel.platforms:
        level = _platform_level(platform)
        if level is None:
            continue
        for python in wheel.pythons:
            for abi in wheel.abis:
                kind = _abi_level(python, abi)
                if kind is not None:
                    best = max(best or (-1,), (*kind, level))
    return best


def _platform_level(platform: str) -> int | None:
    if platform == "any":
        return 0
    aliases = {"manylinux1_x86_64": 5, "manylinux2010_x86_64": 12, "manylinux2014_x86_64": 17, "linux_x86_64": 1}
    if platform in aliases:
        return aliases[platform]
    parts = platform.split("_")
    if platform.startswith("manylinux_2_") and platform.endswith("_x86_64") and int(parts[2]) <= GLIBC_MINOR:
        return int(parts[2])
    return None


def _abi_level(python: str, abi: str) -> tuple[int, int] | None:
    if python == "cp311" and abi == "cp311":
        return (3, 11)
    if abi == "abi3" and python.startswith("cp3") and python[3:].isdigit() and int(python[3:]) <= 11:
        return (2, int(python[3:]))
    if python == "cp311" and abi == "none":
        return (2, 0)
    if python.startswith("py3") and abi == "none":
        return (1, 0)
    return None


def choose(name: str, version: str, wheels: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The lock's entry for one package.

    Raises:
        BuildError: no wheel fits.
    """
    ranked = []
    for item in wheels:
        file = str(item.get("name") or item["url"].rpartition("/")[2])
        level = rank(file)
        if level is not None:
            ranked.append((level, file, item))
    if not ranked:
        raise BuildError(f"{name} {version} has no wheel for CPython 3.11 on linux x86_64: pin another version")
    _, file, item = max(ranked, key=lambda r: (r[0], r[1]))
    return {"name": name, "version": version, "file": file, "sha256": item["hashes"]["sha256"], "size": item["size"]}


def resolve(project: Path) -> list[dict[str, Any]]:
    """Resolve one environment's toml against the index that this machine is configured with."""
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(project, Path(folder) / "pyproject.toml")
        for command in (
            ["lock", "-q"],
            ["export", "-q", "--format", "pylock.toml", "--no-header", "-o", "pylock.toml"],
        ):
            done = subprocess.run([uv, *command, "--python", "3.11"], cwd=folder, capture_output=True, text=True)
            if done.returncode != 0:
                raise BuildError(f"uv could not resolve {project.name}: {done.stderr.strip()[-1500:]}")
        exported = tomllib.loads((Path(folder) / "pylock.toml").read_text())
    return sorted(
        (choose(p["name"], p["version"], p.get("wheels", [])) for p in exported["packages"] if "version" in p),
        key=lambda entry: str(entry["name"]),
    )


def lock(root: Path) -> None:
    """Write `root/nix/environments/lock.json`."""
    folder = root / "nix/environments"
    document = {path.stem: resolve(path) for path in sorted(folder.glob("*.toml"))}
    write_atomically(folder / "lock.json", (json.dumps(document, indent=1) + "\n").encode())
    for name, entries in document.items():
        print(
            f"nix/environments/lock.json: {name}: {len(entries)} wheels, {sum(e['size'] for e in entries) / 1e6:.0f} MB"
        )
