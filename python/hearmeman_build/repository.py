"""Where images are kept: one declared place, which push, compose and the docs share."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hearmeman_build.errors import BuildError

VARIABLE = "HEARMEMAN_REPOSITORY"

_REFERENCE = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+")
_GITHUB = re.compile(r"(?:https://(?:[^@/]+@)?|ssh://git@|git@)github\.com[:/](?P<name>[^/]+/[^/]+?)(?:\.git)?/?")
_HOW = f"set {VARIABLE}=REGISTRY/NAME, in the environment or in .env, or give --to REGISTRY/NAME"


@dataclass(frozen=True)
class Repository:
    """A repository of images and who named it."""

    reference: str
    """REGISTRY/NAME, without tag or digest."""
    source: str
    """Where the name is from, for people."""


def find(given: str, environ: Mapping[str, str], root: Path) -> Repository:
    """The repository of `given` (--to), else of the environment, else of `root`/.env, else GitHub's for the git remote.

    Raises:
        BuildError: none of them names one, or it is not REGISTRY/NAME.
    """
    for name, source in (
        (given, "--to"),
        (environ.get(VARIABLE, ""), VARIABLE),
        (_in_env_file(root / ".env"), f"{VARIABLE} in .env"),
        (_of_remote(root), "the git remote origin"),
    ):
        if name:
            return Repository(_checked(name, source), source)
    raise BuildError(f"no repository is named, and the git remote origin is not on GitHub: {_HOW}")


def _checked(name: str, source: str) -> str:
    if "@" in name or ":" in name.rpartition("/")[2]:
        raise BuildError(f"{source} {name} has a tag or digest: give REGISTRY/NAME, and the tag by --tag")
    if not _REFERENCE.fullmatch(name):
        raise BuildError(f"{source} {name} is not REGISTRY/NAME in lowercase, like ghcr.io/you/hearmeman: {_HOW}")
    return name


def _in_env_file(path: Path) -> str:
    """The value that compose reads too."""
    if not path.is_file():
        return ""
    found = re.findall(rf"^{VARIABLE}=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[-1].strip().strip("\"'") if found else ""


def _of_remote(root: Path) -> str:
    """ghcr.io/OWNER/NAME for a checkout whose origin is on GitHub, as GitHub's own workflow pushes; "" for others."""
    command = ["git", "-c", "safe.directory=*", "-C", str(root), "config", "--get", "remote.origin.url"]
    try:
        url = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
    match = _GITHUB.fullmatch(url)
    return f"ghcr.io/{match['name'].lower()}" if match else ""
