"""Downloads the locks' files with this machine's own apt and pip, each checked by hash, and says why one cannot be had."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hearmeman_build import flake
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT, WORK, nix
from hearmeman_build.plugins.wheel import check_platform, parse

_APT_HELPER = "/usr/lib/apt/apt-helper"


def store_name(file: str) -> str:
    """A file's name in the store: `~` is not allowed there."""
    return file.rpartition("/")[2].replace("~", "_")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder(root: Path) -> Path:
    folder = (WORK if root == ROOT else root / ".work") / "prefetch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fresh(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def fetch_debs(
    root: Path, lock: Mapping[str, Any], packages: Sequence[str], recipe: Path | None = None
) -> dict[str, Path]:
    """Download the named packages of the userland lock with apt; package -> file.

    What the machine's mirror does not have is in the archive of the lock's day, whose address `recipe` has (default:
    nix/fetch.nix).

    Raises:
        BuildError: a file is in neither, or has another hash than the lock.
    """
    wanted = {name: lock["packages"][name] for name in packages}
    folder = cache_folder(root)
    files = {name: folder / store_name(entry["file"]) for name, entry in wanted.items()}
    missing = [name for name in wanted if not _fresh(files[name], wanted[name]["sha256"])]
    if missing:
        known = mirrors()
        for name in missing:
            files[name].unlink(missing_ok=True)
        addresses = {
            name: known[wanted[name]["archive"]] + wanted[name]["file"]
            for name in missing
            if wanted[name]["archive"] in known
        }
        said = _apt({files[name]: (address, wanted[name]["sha256"]) for name, address in addresses.items()})
        gone, last = {name: wanted[name] for name in missing if not files[name].is_file()}, ""
        if gone and not _UNREACHABLE.search(said) and not _MISMATCH.search(said):
            older = _archived(gone, lock["snapshot"], recipe or flake.folder() / "nix/fetch.nix")
            last = _apt({files[name]: (address, wanted[name]["sha256"]) for name, address in older.items()})
        for name, entry in gone.items():
            if files[name].is_file():
                continue
            if name not in addresses:
                raise BuildError(
                    f"apt on this machine has no {entry['archive']} archive: add it to its sources\n{last[-600:]}"
                )
            file = f"{entry['file']} of nix/userland/lock.json"
            raise BuildError(f"{file} could not be fetched: {reason(said, 'the Debian mirror')}\n{said[-600:]}")
    for name, path in files.items():
        check_file(path, wanted[name]["sha256"], "nix/userland/lock.json")
    return files


def _apt(wanted: Mapping[Path, tuple[str, str]]) -> str:
    """Download files, each from its address and with its sha256; what apt said."""
    words = [word for path, (address, sha256) in wanted.items() for word in (address, str(path), f"SHA256:{sha256}")]
    return _run([_APT_HELPER, "-o", "APT::Sandbox::User=root", "-q", "download-file", *words]) if words else ""


def _archived(wanted: Mapping[str, Mapping[str, Any]], day: str, recipe: Path) -> dict[str, str]:
    """Package -> its address in the archive of `day`, the last one that `recipe` names."""
    text = json.dumps({name: {"file": entry["file"], "archive": entry["archive"]} for name, entry in wanted.items()})
    deb = f'(import {recipe} {{ pkgs.fetchurl = wanted: wanted; }}).deb "{day}"'
    entries = f"builtins.fromJSON ''{text}''"
    last = f'builtins.mapAttrs (name: entry: builtins.elemAt ({deb} (entry // {{ sha256 = ""; }})).urls 1) ({entries})'
    addresses: dict[str, str] = json.loads(nix("eval", "--impure", "--json", "--expr", last))
    return addresses


def check_file(path: Path, sha256: str, lock: str) -> None:
    """Compare a file with its lock.

    Raises:
        BuildError: the hash differs; the file is deleted, so that nothing uses it.
    """
    actual = sha256_of(path)
    if actual != sha256:
        path.unlink()
        raise BuildError(
            f"{path.name} has sha256 {actual}, {lock} says {sha256}: the download is damaged; "
            "run the same command again; if that does not help, `make lock`"
        )


@cache
def mirrors() -> dict[str, str]:
    """Archive folder -> mirror address, from this machine's apt."""
    uris = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], subprocess.DEVNULL)
    return {uri.rstrip("/").rpartition("/")[2]: uri.rstrip("/") + "/" for uri in uris.split()}


def _run(command: Sequence[str], errors: int = subprocess.STDOUT) -> str:
    """What a command says, whether it succeeds or not; its callers look at what it made."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, check=False).stdout.strip()
    except FileNotFoundError as error:
        raise BuildError(
            f"{command[0]} is not on this machine: pinned packages are fetched with Debian's apt; on another "
            "system build "
            "with nixpkgs, `nix build .#image-TIER`, which fetches them itself"
        ) from error


_MISMATCH = re.compile(r"hash sum mismatch|do not match the hashes", re.IGNORECASE)
_UNREACHABLE = re.compile(
    "could not (connect|resolve)|temporary failure|timed out|unable to connect|connection "
    "(failed|broken|refused|reset)"
    # What pip says, without any retry, of an index that does not answer.
    r"|\(from versions: none\)"
    r"|network is unreachable|name or service not known|\b50[0-9] ",
    re.IGNORECASE,
)


def reason(said: str, where: str) -> str:
    """Why a download failed and what to do, from what apt or pip said of it."""
    if _MISMATCH.search(said):
        return f"{where} sent other bytes than the lock's sha256: run the same command again; if that does not help, `make lock`"
    if "Traceback (most recent call last)" in said:
        return f"pip itself failed, {said.strip().splitlines()[-1]}: remove that cause, then run the same command again"
    if _UNREACHABLE.search(said):
        return f"{where} cannot be reached: check the network, then run the same command again"
    return f"{where} no longer has it: run `make lock`, which takes what it has today"


def fetch_wheels(root: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, Path]:
    """Download the files of an environment's lock with pip, wheels and sources; file name -> file.

    Raises:
        BuildError: a wheel is for another platform, is not in the index, or has another hash.
    """
    cache = cache_folder(root)
    for entry in entries:
        if entry["file"].endswith(".whl"):
            check_platform(parse(entry["file"]))
    files = {entry["file"]: cache / entry["file"] for entry in entries}
    missing = [entry for entry in entries if not _fresh(files[entry["file"]], entry["sha256"])]
    wheels = [entry for entry in missing if entry["file"].endswith(".whl")]
    platforms = sorted({p for entry in wheels for p in parse(entry["file"]).platforms if p != "any"})
    wheel_flags = ["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp"]
    wheel_flags += [word for platform in platforms for word in ("--platform", platform)]
    said = _pip(wheels, cache, wheel_flags)
    said += _pip([entry for entry in missing if entry not in wheels], cache, ["--no-binary=:all:"])
    for entry in missing:
        if not files[entry["file"]].is_file():
            file = f"{entry['file']} of nix/environments/lock.json"
            why = reason(said, "the Python index")
            raise BuildError(f"{file} could not be fetched: {why}\n{_errors(said)}")
    for entry in entries:
        check_file(files[entry["file"]], entry["sha256"], "nix/environments/lock.json")
    return files


def _pip(entries: Sequence[Mapping[str, Any]], cache: Path, flags: Sequence[str]) -> str:
    """Download `entries`, each by its hash; what pip said on its error stream."""
    if not entries:
        return ""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        for entry in entries:
            requirements.write(f"{entry['name']}=={entry['version']} --hash=sha256:{entry['sha256']}\n")
        requirements.flush()
        command = [_python(), "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "--no-cache-dir"]
        command += ["-d", str(cache), *flags, "-r", requirements.name]
        return _run(command)


def fetchers() -> dict[str, bool]:
    """Whether this machine has what downloads are made with."""
    return {"apt": Path(_APT_HELPER).exists(), "pip": _OWN.exists() or importlib.util.find_spec("pip") is not None}


_OWN = ROOT / ".venv/bin/python"
"""The checkout's own Python, which has pip where an app runs on another."""


def _python() -> str:
    """A Python with pip.

    Raises:
        BuildError: there is none.
    """
    if not fetchers()["pip"]:
        raise BuildError(f"pip is not installed: run `./setup.sh demo` in {ROOT}, then the same command again")
    return str(_OWN) if _OWN.exists() else sys.executable


def _errors(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith("ERROR")]
    return "\n".join(lines or said.splitlines()[-5:])


BATCH_BYTES = 400_000_000


def batches(entries: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Group downloads, small files first, into some 400 MB each; pip takes one version of a package at a time."""
    grouped: list[list[Mapping[str, Any]]] = []
    for entry in sorted(entries, key=lambda e: e["size"]):
        for batch in grouped:
            fits = sum(e["size"] for e in batch) + entry["size"] <= BATCH_BYTES
            if fits and entry["name"] not in {e["name"] for e in batch}:
                batch.append(entry)
                break
        else:
            grouped.append([entry])
    return grouped
