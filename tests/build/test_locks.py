"""The committed locks, and what a wrong one says before anything is built."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from hearmeman_build import flake, prefetch
from hearmeman_build.build import build_image
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT, nix

USERLAND = json.loads((ROOT / "nix/userland/lock.json").read_text())
ENVIRONMENTS = json.loads((ROOT / "nix/environments/lock.json").read_text())


def test_locks_carry_names_and_hashes_never_addresses() -> None:
    for lock in ("nix/userland/lock.json", "nix/environments/lock.json", "tests/test.lock", "tests/demo.lock"):
        assert "://" not in (ROOT / lock).read_text(), lock


def test_every_input_of_the_flake_is_locked() -> None:
    nodes = json.loads((ROOT / "flake.lock").read_text())["nodes"]
    declared = re.findall(r"^    ([\w-]+)(?:\.url)? = ", (ROOT / "flake.nix").read_text(), re.MULTILINE)
    assert sorted(declared) == sorted(nodes["root"]["inputs"])
    for name, node in nodes.items():
        if name != "root":
            assert re.fullmatch(r"sha256-[A-Za-z0-9+/]{43}=", node["locked"]["narHash"]), name
            assert re.fullmatch(r"[0-9a-f]{40}", node["locked"]["rev"]), name


def test_our_store_paths_are_nix_own() -> None:
    entry = ENVIRONMENTS["runtime"][0]
    assert prefetch.flat_path(entry["file"], entry["sha256"]) == prefetch.fixed_path(entry["file"], entry["sha256"])


def _stage(folder: Path) -> Path:
    """A repository with its own locks and no downloads."""
    for lock in ("nix/userland/lock.json", "nix/environments/lock.json"):
        (folder / lock).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / lock, folder / lock)
    return folder


def test_a_wrong_hash_of_a_wheel_is_named(tmp_path: Path) -> None:
    entry = {**next(e for e in ENVIRONMENTS["runtime"] if e["name"] == "six"), "sha256": "0" * 64}
    with pytest.raises(BuildError, match=r"six.*of nix/environments/lock.json could not be fetched: the hash"):
        prefetch.fetch_wheels(_stage(tmp_path), [entry])
    assert list((tmp_path / ".work/prefetch").iterdir()) == []


def test_a_wrong_hash_of_a_deb_is_named(tmp_path: Path) -> None:
    lock = json.loads(json.dumps(USERLAND))
    lock["packages"]["tini"]["sha256"] = "0" * 64
    with pytest.raises(BuildError, match=r"tini.*nix/userland/lock.json"):
        prefetch.fetch_debs(_stage(tmp_path), lock, ["tini"])
    assert not list((tmp_path / ".work/prefetch").glob("tini*.deb"))


def test_a_truncated_download_is_fetched_again(tmp_path: Path) -> None:
    first = prefetch.fetch_debs(_stage(tmp_path), USERLAND, ["tini"])["tini"]
    whole = first.read_bytes()
    first.write_bytes(whole[:100])
    assert prefetch.fetch_debs(tmp_path, USERLAND, ["tini"])["tini"].read_bytes() == whole


def test_an_unknown_tier_lists_the_known_ones() -> None:
    with pytest.raises(BuildError, match=r"no tier 'huge': nix/tiers\.nix has .*smoke"):
        build_image("huge")


def test_the_flake_says_so_too() -> None:
    reference = f"{flake.reference()}#lib.image"
    with pytest.raises(BuildError, match=r"no tier huge: nix/tiers\.nix has"):
        nix("eval", reference, *flake.offline_inputs(), "--apply", 'image: (image "huge").outPath')


def test_a_missing_store_path_says_what_to_run() -> None:
    pkgs = f"((import {flake.folder()}/nix/offline/nixpkgs/flake.nix).outputs {{ self = null; }}).legacyPackages.x86_64-linux"
    expression = f"(import {flake.folder()}/nix/fetch.nix {{ pkgs = {pkgs}; }}).wheel"
    wheel = '{ file = "gone-1.0-py3-none-any.whl"; sha256 = "' + "1" * 64 + '"; }'
    with pytest.raises(BuildError, match=r"run-make-prefetch-first/gone-1\.0-py3-none-any\.whl"):
        nix("build", "--impure", "--no-link", "--expr", f"{expression} {wheel}")


def test_a_wheel_for_another_platform_ends_evaluation() -> None:
    call = f"(import {flake.folder()}/nix/fetch.nix {{ pkgs = {{ }}; }}).wheel"
    wheel = '{ file = "toy-1.0-cp311-cp311-win_amd64.whl"; sha256 = "1"; }'
    with pytest.raises(BuildError, match=r"toy-1\.0-cp311-cp311-win_amd64\.whl .* is for another platform"):
        nix("eval", "--impure", "--expr", f"({call} {wheel}).name")


def test_a_disk_too_small_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    prefetch.check_space(10**9, {tmp_path: 3 * 10**9})
    with pytest.raises(BuildError, match=r"has 2999 MB free, 3000 MB are needed .* nothing was fetched"):
        prefetch.check_space(10**9, {tmp_path: 3 * 10**9 - 10**6})
