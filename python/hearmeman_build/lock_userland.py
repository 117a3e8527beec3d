"""Writes nix/userland/lock.json: apt solves packages.txt against an empty root."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from hearmeman_build import postinst
from hearmeman_build.buildroot import make_buildroot, tree_hash
from hearmeman_build.downloads import fetch_debs
from hearmeman_build.errors import BuildError
from hearmeman_build.host import write_atomically

_URI = re.compile(r"^'(?P<uri>[^']+)' (?P<name>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$")


@dataclass(frozen=True)
class Deb:
    """One solved package."""

    package: str
    version: str
    archive: str
    """"debian" or "debian-security": the archive's folder on every mirror."""
    file: str
    """Path inside the archive, `pool/...`."""
    sha256: str
    size: int


def read_packages(text: str) -> dict[str, list[str]]:
    """`packages.txt` as group -> package names."""
    groups: dict[str, list[str]] = {}
    group = ""
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        if line.startswith("["):
            group = line.strip("[]")
            groups[group] = []
        elif line:
            groups[group] += line.split()
    return groups


def parse_uri(line: str) -> Deb | None:
    """One line of `apt-get --print-uris`."""
    match = _URI.match(line.strip())
    if match is None:
        return None
    uri = unquote(match["uri"])
    prefix, _, rest = uri.partition("/pool/")
    package, version, _ = unquote(match["name"]).removesuffix(".deb").split("_")
    return Deb(package, version, prefix.rpartition("/")[2], f"pool/{rest}", match["sha256"], int(match["size"]))


def _apt(state: Path, *arguments: str) -> str:
    config = state / "apt.conf"
    config.write_text(
        f'Dir::State "{state}/state"; Dir::State::status "{state}/status"; Dir::State::lists "{state}/lists";\n'
        f'Dir::Cache "{state}/cache"; Dir::Cache::archives "{state}/cache/archives";\n'
        'Dir::Etc::preferences "/dev/null"; Dir::Etc::preferencesparts "/dev/null";\n'
        'APT::Architecture "amd64"; APT::Architectures "amd64"; APT::Install-Recommends "false";\n'
        'Acquire::Languages "none"; Acquire::ForceHash "SHA256"; APT::Sandbox::User "root";\n'
    )
    for folder in ("state", "lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    done = subprocess.run(
        ["apt-get", "-q", *arguments], env={**os.environ, "APT_CONFIG": str(config)}, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise BuildError(f"apt-get {' '.join(arguments[:3])} failed: {done.stderr.strip()}")
    return done.stdout


def solve(groups: dict[str, list[str]], state: Path) -> dict[str, list[Deb]]:
    """Each group's closure; a group after the first of the image holds only what those before it lack."""
    _apt(state, "update")
    solved: dict[str, list[Deb]] = {}
    asked: list[str] = []
    seen: set[str] = set()
    for group, names in groups.items():
        asked = names if group == "buildroot" else [*asked, *names]
        output = _apt(state, "install", "-y", "--no-install-recommends", "--print-uris", *asked)
        debs = [deb for line in output.splitlines() if (deb := parse_uri(line))]
        if group == "buildroot":
            solved[group], asked = debs, []
        else:
            solved[group] = [deb for deb in debs if deb.package not in seen]
            seen |= {deb.package for deb in debs}
    return solved


def lock(root: Path) -> None:
    """Write `root/nix/userland/lock.json`."""
    groups = read_packages((root / "nix/userland/packages.txt").read_text())
    with tempfile.TemporaryDirectory() as folder:
        solved = solve(groups, Path(folder))
    packages = {deb.package: deb for debs in solved.values() for deb in debs}
    document = {
        "groups": {group: sorted(deb.package for deb in debs) for group, debs in solved.items()},
        "packages": {
            name: {
                "version": deb.version,
                "archive": deb.archive,
                "file": deb.file,
                "sha256": deb.sha256,
                "size": deb.size,
            }
            for name, deb in sorted(packages.items())
        },
        "snapshot": time.strftime("%Y%m%dT000000Z", time.gmtime()),
    }
    files = fetch_debs(root, document, list(packages))
    in_image = {deb.package for group, debs in solved.items() if group != "buildroot" for deb in debs}
    postinst.check(root, {name: files[name] for name in in_image})
    files = {name: files[name] for name in document["groups"]["buildroot"]}  # type: ignore[index]
    with tempfile.TemporaryDirectory() as folder:
        made = make_buildroot(sorted(files.values(), key=lambda p: p.name), Path(folder) / "buildroot")
        document["buildroot"] = tree_hash(made)
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    write_atomically(root / "nix/userland/lock.json", text.encode())
    print(f"nix/userland/lock.json: {len(packages)} packages, sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}")


def sri(hex_digest: str) -> str:
    """A sha256 in SRI form."""
    return "sha256-" + base64.b64encode(bytes.fromhex(hex_digest)).decode()
