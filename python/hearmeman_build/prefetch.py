"""Fills the store with the locks' files, using this machine's own apt and pip, each checked by hash."""

from __future__ import annotations

import base64
import fcntl
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hearmeman_build import locks
from hearmeman_build.buildroot import make_buildroot
from hearmeman_build.downloads import BATCH_BYTES, batches, cache_folder, fetch_debs, fetch_wheels, store_name
from hearmeman_build.errors import BuildError
from hearmeman_build.host import WORK, free_bytes, nix, store_file, store_option
from hearmeman_build.store import (
    add_files,
    damaged,
    discard,
    fixed_path,
    flat_path,
    flat_paths,
    invalid_paths,
    keep,
    link_or_copy,
)

COPIES = 3
"""A file is in the download cache, in the store, and about once more in the layers made of it."""


def check_space(missing: int, places: Mapping[Path, int]) -> None:
    """Refuse a fetch of `missing` bytes that cannot fit; `places` maps a folder to its filesystem's free bytes.

    Raises:
        BuildError: names the folder and both figures; nothing was fetched.
    """
    needed = COPIES * missing
    for place, free in places.items():
        if free < needed:
            raise BuildError(
                f"{place} has {free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB are needed for the files to fetch and the "
                "layers made of them: free some space; nothing was fetched"
            )


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
    userland, locked = locks.userland(root), locks.environments(root, environments)
    packages = locks.packages(userland, groups)
    if any(not entry["file"].endswith(".whl") for name in environments for entry in locked[name]):
        # Packages that publish no wheel are built by setuptools.
        environments = [*environments, "build"]
    if environments:
        environments = [*environments, "tools"]
    wheels = list({e["file"]: e for environment in environments for e in locked[environment]}.values())

    deb_names = {name: store_name(userland["packages"][name]["file"]) for name in packages}
    hashes = {deb_names[name]: userland["packages"][name]["sha256"] for name in packages}
    hashes |= {entry["file"]: entry["sha256"] for entry in wheels}
    paths = flat_paths(hashes)
    invalid = invalid_paths(list(paths.values()))
    broken = damaged([path for path in paths.values() if path not in invalid])
    if broken:
        say(f"{len(broken)} files in the store are damaged and are fetched again: {', '.join(map(_name, broken))}")
        discard(broken)
        invalid |= set(broken)

    missing_debs = [name for name in packages if paths[deb_names[name]] in invalid]
    missing_wheels = [entry for entry in wheels if paths[entry["file"]] in invalid]
    deb_bytes = sum(userland["packages"][name]["size"] for name in missing_debs)
    wheel_bytes = sum(entry["size"] for entry in missing_wheels)
    check_space(deb_bytes + wheel_bytes, {place: free_bytes(place) for place in (WORK, store_file("/nix/store"))})
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
            if wheel_bytes > BATCH_BYTES:
                say(f"  {done / 1e6:.0f} of {wheel_bytes / 1e6:.0f} MB")
    buildroot = add_buildroot(root, userland, say)
    keep([*paths.values(), buildroot])


def _borrow(root: Path, wanted: Mapping[str, str]) -> None:
    """Take from the machine's own store what another store lacks; name -> sha256, which is checked like a download."""
    if not store_option():
        return
    for name, sha256 in wanted.items():
        there, here = Path(flat_path(name, sha256)), cache_folder(root) / name
        if there.is_file() and not here.exists():
            link_or_copy(there, here)


def _name(path: str) -> str:
    return path.partition("-")[2]


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
        if not damaged([path]):
            return path
        say("the buildroot in the store is damaged and is made again")
        discard([path])
    names = locks.packages(userland, ["buildroot"])
    say(f"making the buildroot from {len(names)} packages")
    hashes = {store_name(userland["packages"][n]["file"]): userland["packages"][n]["sha256"] for n in names}
    stored = flat_paths(hashes)
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
