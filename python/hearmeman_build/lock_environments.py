"""Writes nix/environments/lock.json: uv resolves the toml files and one file is chosen for each package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hearmeman_build import locks
from hearmeman_build.errors import BuildError
from hearmeman_build.host import write_atomically
from hearmeman_build.plugins.wheel import parse

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


def choose(
    name: str, version: str, wheels: Iterable[Mapping[str, Any]], sdist: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The lock's entry for one package; its source where it publishes no wheel at all.

    Raises:
        BuildError: no wheel fits.
    """
    ranked: list[tuple[tuple[int, ...], str, Mapping[str, Any]]] = []
    wheels = list(wheels)
    if not wheels and sdist is not None:
        ranked = [((0,), _file_name(sdist), sdist)]
    for item in wheels:
        file = _file_name(item)
        level = rank(file)
        if level is not None:
            ranked.append((level, file, item))
    if not ranked:
        raise BuildError(f"{name} {version} has no wheel for CPython 3.11 on linux x86_64: pin another version")
    _, file, item = max(ranked, key=lambda r: (r[0], r[1]))
    return {"name": name, "version": version, "file": file, "sha256": item["hashes"]["sha256"], "size": item["size"]}


def _file_name(item: Mapping[str, Any]) -> str:
    # By its address: uv's own `name` is in small letters, and the index knows InquirerPy-0.3.4 by its capitals alone.
    return str(item["url"].rpartition("/")[2] if "url" in item else item["name"])


def combined(base: Mapping[str, Any], members: Mapping[str, Mapping[str, Any]]) -> str:
    """One project with an extra for each environment, so that uv keeps one version wherever all of them allow it."""
    common = base["project"]["dependencies"]
    extras = {name: [*common, *member["project"]["dependencies"]] for name, member in members.items()}
    lines = ["[project]", 'name = "environments"', 'version = "0"']
    lines += [f"requires-python = {json.dumps(base['project']['requires-python'])}", "dependencies = []"]
    lines += ["[project.optional-dependencies]", *(f"{n} = {json.dumps(d)}" for n, d in extras.items())]
    lines += ["[tool.uv]", *(f"{key} = {json.dumps(value)}" for key, value in base["tool"]["uv"].items())]
    conflicts = ", ".join(f"{{ extra = {json.dumps(name)} }}" for name in extras)
    return "\n".join([*lines, f"conflicts = [[{conflicts}]]"]) + "\n"


def preferred(entries: Iterable[Mapping[str, Any]], python: str) -> str:
    """A uv.lock for `python` (a version specifier) that only says which versions to keep where they still fit."""
    lines = ["version = 1", f"requires-python = {json.dumps(python)}"]
    for name, version in sorted({(entry["name"], entry["version"]) for entry in entries}):
        lines += ["[[package]]", f"name = {json.dumps(name)}", f"version = {json.dumps(version)}"]
        # uv asks for a source, and does not read it.
        lines.append('source = { registry = "https://kept.invalid" }')
    return "\n".join(lines) + "\n"


def resolve(
    project: str, extras: Sequence[str], keep: Iterable[Mapping[str, Any]] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Resolve a project against the index that this machine is configured with; extra -> its packages.

    Without extras the project itself, under the name "". The versions of `keep` stay where they can.

    Raises:
        BuildError: the requirements contradict each other, or a package has no file for the image.
    """
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pyproject.toml").write_text(project)
        python = tomllib.loads(project)["project"]["requires-python"]
        (Path(folder) / "uv.lock").write_text(preferred(keep, python))
        _uv(folder, "lock")
        for extra in extras or [""]:
            chosen = ["--extra", extra] if extra else []
            _uv(folder, "export", *chosen, "--format", "pylock.toml", "--no-header", "-o", "pylock.toml")
            exported = tomllib.loads((Path(folder) / "pylock.toml").read_text())
            entries = [
                choose(p["name"], p["version"], p.get("wheels", []), p.get("sdist"))
                for p in exported["packages"]
                if "version" in p
            ]
            found[extra] = sorted(entries, key=lambda entry: str(entry["name"]))
    return found


def uv() -> str:
    """The uv of the tests' environment, or the machine's."""
    return shutil.which("uv") or str(Path(sys.executable).parent / "uv")


def _uv(folder: str, *arguments: str) -> None:
    done = subprocess.run([uv(), *arguments, "-q"], cwd=folder, capture_output=True, text=True)
    if any(words in done.stderr for words in ("No interpreter found", "python-build-standalone")):
        raise BuildError(
            "uv found no Python of the image's version on this machine and could not download one: install it, or run "
            "this on Debian 12"
        )
    if done.returncode != 0:
        raise BuildError(f"uv could not resolve the environments: {done.stderr.strip()[-1500:]}")


def lock(root: Path, upgrade: bool = False) -> None:
    """Write `root/nix/environments/lock.json`; with `upgrade` the newest versions that fit, not those it has."""
    folder = root / "nix/environments"
    before = {} if upgrade else locks.environments(root)
    base = tomllib.loads((folder / "base.toml").read_text())
    members = base["tool"]["hearmeman"]["members"]
    together = combined(base, {name: tomllib.loads((folder / f"{name}.toml").read_text()) for name in members})
    document = resolve(together, members, [entry for name in members for entry in before.get(name, [])])
    for path in sorted(folder.glob("*.toml")):
        if path.stem not in (*members, "base"):
            document[path.stem] = resolve(path.read_text(), [], before.get(path.stem, []))[""]
    write_atomically(folder / "lock.json", (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())
    for name, entries in sorted(document.items()):
        size = sum(entry["size"] for entry in entries)
        print(f"nix/environments/lock.json: {name}: {len(entries)} packages, {size / 1e6:.0f} MB")
