"""Checks that somebody has read each maintainer script of the userland: nix/userland/postinst.toml says what became of it."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

from hearmeman_build.errors import BuildError

TABLE = "nix/userland/postinst.toml"


def script(deb: Path) -> bytes:
    """A package's postinst; empty where it has none.

    Raises:
        BuildError: the file is no whole package.
    """
    done = subprocess.run(["dpkg-deb", "--ctrl-tarfile", str(deb)], capture_output=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{deb.name} does not unpack: run `make prefetch`, which fetches damaged files again")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        for member in tar:
            if member.name.removeprefix("./") == "postinst":
                content = tar.extractfile(member)
                return content.read() if content is not None else b""
    return b""


def digest(content: bytes) -> str:
    """How the table names a script."""
    return hashlib.sha256(content).hexdigest()[:16]


def check(root: Path, debs: Mapping[str, Path]) -> None:
    """Compare the scripts of `debs` (package -> file) with the table.

    Raises:
        BuildError: names each package whose script is new, has changed, or is listed without a reason.
    """
    table = tomllib.loads((root / TABLE).read_text())
    problems = []
    for name, deb in sorted(debs.items()):
        content = script(deb)
        if not content:
            continue
        entry = table.get(name)
        if entry is None:
            problems.append(f'["{name}"] is not there: script = "{digest(content)}"')
        elif entry["script"] != digest(content):
            problems.append(f'["{name}"] has another script now: script = "{digest(content)}"')
        elif not (entry.get("replayed") or entry.get("left_out")):
            problems.append(f'["{name}"] has neither replayed nor left_out with a reason')
    if problems:
        raise BuildError(
            f"{TABLE} does not say what became of {len(problems)} maintainer scripts: read each with "
            "`dpkg-deb --ctrl-tarfile .work/prefetch/PACKAGE*.deb | tar -xO ./postinst`, replay what matters in "
            "plugins/fixups.py, and write what became of it:\n" + "\n".join(problems)
        )
