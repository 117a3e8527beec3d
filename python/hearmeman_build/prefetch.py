"""Fills the store with the locks' files, using this machine's own apt and pip, each checked by hash."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hearmeman_build.buildroot import make_buildroot
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT, WORK, nix, store_file, store_option
from hearmeman_build.plugins.wheel import check_platform, parse

_APT_HELPER = "/usr/lib/apt/apt-helper"


def store_name(file: str) -> str:
    """A file's name in the store: `~` is not allowed there."""
    return file.rpartition("/")[2].replace("~", "_")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cache(root: Path) -> Path:
    folder = (WORK if root == ROOT else root / ".work") / "prefetch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fresh(path: Path, sha256: str) -> bool:
    return path.is_file() and _sha256(path) == sha256


def fetch_debs(root: Path, lock: Mapping[str, Any], packages: Sequence[str]) -> dict[str, Path]:
    """Download the named packages of the userland lock with apt; package -> file.

    Raises:
        BuildError: a file is not on the mirror, or has another hash than the lock.
    """
    cache = _cache(root)
    wanted = {name: lock["packages"][name] for name in packages}
    files = {name: cache / store_name(entry["file"]) for name, entry in wanted.items()}
    missing = [name for name in wanted if not _fresh(files[name], wanted[name]["sha256"])]
    if missing:
        mirrors = _mirrors()
        arguments = []
        for name in missing:
            entry = wanted[name]
            mirror = mirrors.get(entry["archive"])
            if mirror is None:
                raise BuildError(f"apt on this machine has no {entry['archive']} archive: add it to its sources")
            files[name].unlink(missing_ok=True)
            arguments += [mirror + entry["file"], str(files[name]), f"SHA256:{entry['sha256']}"]
        done = subprocess.run(
            [_APT_HELPER, "-o", "APT::Sandbox::User=root", "-q", "download-file", *arguments],
            capture_output=True,
            text=True,
        )
        for name in missing:
            if not files[name].is_file():
                raise BuildError(
                    f"{wanted[name]['file']} of nix/userland/lock.json could not be fetched: it may have left the mirror "
                    f"or the hash in the lock is wrong; run `make lock`\n{done.stderr.strip()[-600:]}"
                )
    for name, path in files.items():
        check_file(path, wanted[name]["sha256"], "nix/userland/lock.json")
    return files


def check_file(path: Path, sha256: str, lock: str) -> None:
    """Compare a file with its lock.

    Raises:
        BuildError: the hash differs; the file is deleted, so that nothing uses it.
    """
    actual = _sha256(path)
    if actual != sha256:
        path.unlink()
        raise BuildError(
            f"{path.name} has sha256 {actual}, {lock} says {sha256}: the download is damaged or the lock is wrong; "
            "run `make prefetch` again, then `make lock`"
        )


def _mirrors() -> dict[str, str]:
    """Archive folder -> mirror address, from this machine's apt."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], stdout=subprocess.PIPE, text=True, check=True
    )
    return {uri.rstrip("/").rpartition("/")[2]: uri.rstrip("/") + "/" for uri in done.stdout.split()}


def fetch_wheels(root: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, Path]:
    """Download the files of an environment's lock with pip, wheels and sources; file name -> file.

    Raises:
        BuildError: a wheel is for another platform, is not in the index, or has another hash.
    """
    cache = _cache(root)
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
            raise BuildError(
                f"{entry['file']} of nix/environments/lock.json could not be fetched: the hash in the lock is wrong or "
                f"the index does not have it; run `make lock`\n{_errors(said)}"
            )
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
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "--no-cache-dir"]
        command += ["-d", str(cache), *flags, "-r", requirements.name]
        return subprocess.run(command, capture_output=True, text=True).stderr


def _errors(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith("ERROR")]
    return "\n".join(lines or said.splitlines()[-5:])


_BATCH_BYTES = 400_000_000


def batches(entries: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Group downloads, small files first, into some 400 MB each; pip takes one version of a package at a time."""
    grouped: list[list[Mapping[str, Any]]] = []
    for entry in sorted(entries, key=lambda e: e["size"]):
        for batch in grouped:
            fits = sum(e["size"] for e in batch) + entry["size"] <= _BATCH_BYTES
            if fits and entry["name"] not in {e["name"] for e in batch}:
                batch.append(entry)
                break
        else:
            grouped.append([entry])
    return grouped


def fixed_path(name: str, sha256: str, recursive: bool = False) -> str:
    """The store path of a fixed-output file or tree."""
    flags = ["--recursive"] if recursive else []
    return nix("--print-fixed-path", *flags, "sha256", sha256, name, program="nix-store")


def _fixed_paths(wanted: Mapping[str, str]) -> dict[str, str]:
    """Name -> store path for flat files; the naming rule of Nix, computed here because 100 calls take seconds."""
    return {name: flat_path(name, sha256) for name, sha256 in wanted.items()}


_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"


def flat_path(name: str, sha256: str) -> str:
    """Nix's store path for a flat fixed-output file (Nix manual, store path specification)."""
    inner = hashlib.sha256(f"fixed:out:sha256:{sha256}:".encode()).hexdigest()
    full = hashlib.sha256(f"output:out:sha256:{inner}:/nix/store:{name}".encode()).digest()
    short = bytearray(20)
    for index, byte in enumerate(full):
        short[index % 20] ^= byte
    number = int.from_bytes(short, "little")
    return f"/nix/store/{''.join(_BASE32[number >> 5 * i & 31] for i in reversed(range(32)))}-{name}"


def invalid_paths(paths: Sequence[str]) -> set[str]:
    """Those store paths that the store does not hold."""
    if not paths:
        return set()
    return set(nix("--check-validity", "--print-invalid", *paths, program="nix-store").split())


_COPIES = 3
"""A file is in the download cache, in the store, and about once more in the layers made of it."""


def check_space(missing: int, places: Mapping[Path, int]) -> None:
    """Refuse a fetch of `missing` bytes that cannot fit; `places` maps a folder to its filesystem's free bytes.

    Raises:
        BuildError: names the folder and both figures; nothing was fetched.
    """
    needed = _COPIES * missing
    for place, free in places.items():
        if free < needed:
            raise BuildError(
                f"{place} has {free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB are needed for the files to fetch and the "
                "layers made of them: free some space, or run `nix store gc` and `make clean`; nothing was fetched"
            )


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def add_files(files: Mapping[str, Path]) -> None:
    """Put files into the store under their names."""
    if not files:
        return
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        links = []
        for name, path in files.items():
            link = Path(folder, name)
            os.link(path, link)
            links.append(str(link))
        nix("--add-fixed", "sha256", *links, program="nix-store")


def keep(paths: Sequence[str]) -> None:
    """Hold `paths` against the garbage collector by roots under .work/roots; a store of one's own is left alone."""
    if store_option():
        return
    roots = WORK / "roots"
    roots.mkdir(parents=True, exist_ok=True)
    held = {str(link.readlink()) for link in roots.iterdir() if link.is_symlink()}
    missing = sorted(set(paths) - held)
    if missing:
        # One call for all: Nix numbers the links after the first.
        name = hashlib.sha256("\n".join(missing).encode()).hexdigest()[:16]
        nix("--realise", *missing, "--add-root", str(roots / name), "--indirect", program="nix-store")


def prefetch(root: Path, groups: Sequence[str], environments: Sequence[str], say: Any = print) -> None:
    """Bring the store what the named userland groups and environments need, and the buildroot.

    Several may be called at once; they go one after another.

    Raises:
        BuildError: names the file that could not be had, and how to get it.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "prefetch.lock").open("ab") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        _prefetch(root, groups, environments, say)


def _prefetch(root: Path, groups: Sequence[str], environments: Sequence[str], say: Any) -> None:
    userland = json.loads((root / "nix/userland/lock.json").read_text())
    locked = json.loads((root / "nix/environments/lock.json").read_text())
    for environment in environments:
        if environment not in locked:
            raise BuildError(f"no environment {environment} in nix/environments/lock.json: run `make lock`")
    packages = sorted({name for group in groups for name in userland["groups"][group]})
    if any(not entry["file"].endswith(".whl") for name in environments for entry in locked[name]):
        # Packages that publish no wheel are built by setuptools.
        environments = [*environments, "build"]
    if environments:
        environments = [*environments, "tools"]
    wheels = list({e["file"]: e for environment in environments for e in locked[environment]}.values())

    deb_names = {name: store_name(userland["packages"][name]["file"]) for name in packages}
    hashes = {deb_names[name]: userland["packages"][name]["sha256"] for name in packages}
    hashes |= {entry["file"]: entry["sha256"] for entry in wheels}
    paths = _fixed_paths(hashes)
    invalid = invalid_paths(list(paths.values()))

    missing_debs = [name for name in packages if paths[deb_names[name]] in invalid]
    missing_wheels = [entry for entry in wheels if paths[entry["file"]] in invalid]
    deb_bytes = sum(userland["packages"][name]["size"] for name in missing_debs)
    wheel_bytes = sum(entry["size"] for entry in missing_wheels)
    check_space(deb_bytes + wheel_bytes, {place: _free(place) for place in (WORK, store_file("/nix/store"))})
    _borrow(root, {name: hashes[name] for name, path in paths.items() if path in invalid})
    if missing_debs:
        say(f"fetching {len(missing_debs)} Debian packages, {deb_bytes / 1e6:.0f} MB")
        files = fetch_debs(root, userland, missing_debs)
        add_files({deb_names[name]: path for name, path in files.items()})
    if missing_wheels:
        say(f"fetching {len(missing_wheels)} Python wheels, {wheel_bytes / 1e6:.0f} MB")
        done = 0
        for batch in batches(missing_wheels):
            _store_wheels(root, batch)
            done += sum(entry["size"] for entry in batch)
            if wheel_bytes > _BATCH_BYTES:
                say(f"  {done / 1e6:.0f} of {wheel_bytes / 1e6:.0f} MB")
    buildroot = add_buildroot(root, userland, say)
    keep([*paths.values(), buildroot])


def _borrow(root: Path, wanted: Mapping[str, str]) -> None:
    """Take from the machine's own store what another store lacks; name -> sha256, which is checked like a download."""
    if not store_option():
        return
    for name, sha256 in wanted.items():
        there, here = Path(flat_path(name, sha256)), _cache(root) / name
        if there.is_file() and not here.exists():
            try:
                os.link(there, here)
            except OSError:
                shutil.copyfile(there, here)


_KEPT_BYTES = 50_000_000


def _store_wheels(root: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Fetch a batch into the store; large files are not kept beside it."""
    files = fetch_wheels(root, entries)
    add_files(files)
    for path in files.values():
        if path.stat().st_size > _KEPT_BYTES:
            path.unlink()


def add_buildroot(root: Path, userland: Mapping[str, Any], say: Any = print) -> str:
    """Make the buildroot if the store lacks it; its path.

    Raises:
        BuildError: this machine's tools made another tree than the lock says.
    """
    expected = base64.b64decode(userland["buildroot"].removeprefix("sha256-")).hex()
    path = fixed_path("buildroot", expected, recursive=True)
    if not invalid_paths([path]):
        return path
    names = userland["groups"]["buildroot"]
    say(f"making the buildroot from {len(names)} packages")
    hashes = {store_name(userland["packages"][n]["file"]): userland["packages"][n]["sha256"] for n in names}
    stored = _fixed_paths(hashes)
    if invalid_paths(list(stored.values())):
        add_files({p.name: p for p in fetch_debs(root, userland, names).values()})
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        made = make_buildroot([store_file(p) for p in stored.values()], Path(folder, "buildroot"))
        added = nix("--add-fixed", "--recursive", "sha256", str(made), program="nix-store")
    if added != path:
        raise BuildError(
            "the buildroot made here is not the one in nix/userland/lock.json: "
            "a package or this machine's dpkg and tar differ; run `make lock` and look at what changed"
        )
    return path
