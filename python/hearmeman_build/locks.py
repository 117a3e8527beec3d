"""Reads the lock files, and says what is wrong with one that a merge or an editor broke."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hearmeman_build.errors import BuildError

_FIELDS = {"name", "version", "file", "sha256", "size"}


def read(root: Path, name: str, cure: str = "run `make lock`, which writes it anew") -> Any:
    """The JSON of a lock; `cure` is what to do where it holds none.

    Raises:
        BuildError: it is missing, is no JSON or holds the marks of a merge conflict.
    """
    try:
        text = (root / name).read_text()
    except OSError as error:
        raise BuildError(f"{name} cannot be read ({error.strerror}): {cure}") from error
    try:
        return json.loads(text)
    except ValueError as error:
        conflict = any(line.startswith(("<<<<<<< ", ">>>>>>> ")) for line in text.splitlines())
        what = "holds the marks of a merge conflict" if conflict else f"is not JSON ({error})"
        raise BuildError(f"{name} {what}: {cure}") from error


def dump(value: object) -> str:
    """A lock's text."""
    return json.dumps(value, indent=1) + "\n"


def userland(root: Path) -> dict[str, Any]:
    """nix/userland/lock.json.

    Raises:
        BuildError: it cannot be read, or a group names a package that it does not hold.
    """
    name = "nix/userland/lock.json"
    lock: dict[str, Any] = read(root, name)
    if not {"groups", "packages", "buildroot"} <= set(lock):
        raise BuildError(f"{name} lacks its groups, packages or buildroot: run `make lock`")
    for group, members in lock["groups"].items():
        missing = [package for package in members if package not in lock["packages"]]
        if missing:
            raise BuildError(f"{name} has no {', '.join(missing)}, which its group {group} names: run `make lock`")
    return lock


def packages(lock: Mapping[str, Any], groups: Sequence[str]) -> list[str]:
    """The packages of some groups, each once.

    Raises:
        BuildError: there is no such group.
    """
    missing = [group for group in groups if group not in lock["groups"]]
    if missing:
        raise BuildError(
            f"no group {', '.join(missing)} in nix/userland/lock.json: add it to packages.txt, then `make lock`"
        )
    return sorted({package for group in groups for package in lock["groups"][group]})


def environments(root: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """nix/environments/lock.json, with the environments `needed`.

    Raises:
        BuildError: it cannot be read, lacks one of them, or an entry is not whole.
    """
    name = "nix/environments/lock.json"
    lock: dict[str, Any] = read(root, name)
    missing = [environment for environment in needed if environment not in lock]
    if missing:
        raise BuildError(f"no environment {', '.join(missing)} in {name}: run `make lock`")
    for environment, entries in lock.items():
        for entry in entries:
            if not set(entry) >= _FIELDS:
                lacking = ", ".join(sorted(_FIELDS - set(entry)))
                raise BuildError(
                    f"{name}: {entry.get('name', 'a package')} of {environment} lacks {lacking}: run `make lock`"
                )
    return lock
