"""The committed locks, and what a wrong one says before anything is built."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import threading
from pathlib import Path

import pytest

from hearmeman_build import build, doctor, downloads, flake, prefetch, store
from hearmeman_build.build import build_image
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT, nix

USERLAND = json.loads((ROOT / "nix/userland/lock.json").read_text())
ENVIRONMENTS = json.loads((ROOT / "nix/environments/lock.json").read_text())


def test_locks_carry_names_and_hashes_never_addresses() -> None:
    for lock in (
        "nix/userland/lock.json",
        "nix/environments/lock.json",
        "poetry.lock",
        *(f"tests/{path.name}" for path in (ROOT / "tests").glob("*.lock")),
    ):
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
    assert store.flat_path(entry["file"], entry["sha256"]) == store.fixed_path(entry["file"], entry["sha256"])


def _stage(folder: Path) -> Path:
    """A repository with its own locks and no downloads."""
    for lock in ("nix/userland/lock.json", "nix/environments/lock.json"):
        (folder / lock).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / lock, folder / lock)
    return folder


def test_a_wrong_hash_of_a_wheel_is_named(tmp_path: Path) -> None:
    entry = {**next(e for e in ENVIRONMENTS["runtime"] if e["name"] == "six"), "sha256": "0" * 64}
    with pytest.raises(
        BuildError, match=r"six.*of nix/environments/lock.json could not be fetched: .* other bytes than the lock"
    ):
        downloads.fetch_wheels(_stage(tmp_path), [entry])
    assert list((tmp_path / ".work/prefetch").iterdir()) == []


def test_a_wrong_hash_of_a_deb_is_named(tmp_path: Path) -> None:
    lock = json.loads(json.dumps(USERLAND))
    lock["packages"]["tini"]["sha256"] = "0" * 64
    with pytest.raises(BuildError, match=r"tini.*nix/userland/lock.json"):
        downloads.fetch_debs(_stage(tmp_path), lock, ["tini"])
    assert not list((tmp_path / ".work/prefetch").glob("tini*.deb"))


def test_a_truncated_download_is_fetched_again(tmp_path: Path) -> None:
    first = downloads.fetch_debs(_stage(tmp_path), USERLAND, ["tini"])["tini"]
    whole = first.read_bytes()
    first.write_bytes(whole[:100])
    assert downloads.fetch_debs(tmp_path, USERLAND, ["tini"])["tini"].read_bytes() == whole


@pytest.mark.parametrize("archive", ["debian", "an-archive-that-apt-does-not-know"])
def test_a_deb_that_the_mirror_lacks_is_fetched_from_the_archive_of_the_locks_day(tmp_path: Path, archive: str) -> None:
    """As after a point release, and on a system whose apt has no archive of Debian's."""
    file, data = "pool/main/t/tini/tini_0.0.1-gone_amd64.deb", os.urandom(1000)
    kept = tmp_path / "served/archive" / archive / "20260102T000000Z" / file
    kept.parent.mkdir(parents=True)
    kept.write_bytes(data)
    entry = {"file": file, "archive": archive, "sha256": hashlib.sha256(data).hexdigest()}
    lock = {"packages": {"tini": entry}, "snapshot": "20260102T000000Z"}
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        recipe = tmp_path / "fetch.nix"
        text = (ROOT / "nix/fetch.nix").read_text()
        recipe.write_text(re.sub(r"https://[a-z.]+/archive/", f"http://127.0.0.1:{server.server_port}/archive/", text))
        assert downloads.fetch_debs(_stage(tmp_path), lock, ["tini"], recipe)["tini"].read_bytes() == data
        if archive != "debian":
            lock["snapshot"] = "20260103T000000Z"
            (tmp_path / ".work/prefetch" / kept.name).unlink()
            with pytest.raises(BuildError, match=f"has no {archive} archive: add it to its sources"):
                downloads.fetch_debs(tmp_path, lock, ["tini"], recipe)
        server.shutdown()


def test_an_unknown_tier_lists_the_known_ones() -> None:
    with pytest.raises(BuildError, match=r"no tier 'huge': nix/tiers\.nix has .*smoke"):
        build_image("huge")


def test_the_flake_says_so_too() -> None:
    reference = f"{flake.reference()}#lib.image"
    with pytest.raises(BuildError, match=r"no tier huge: nix/tiers\.nix has"):
        nix("eval", reference, *flake.offline_inputs(), "--apply", 'image: (image "huge").outPath')


def test_a_wheel_for_another_platform_ends_evaluation() -> None:
    call = f"(import {flake.folder()}/nix/fetch.nix {{ pkgs = {{ }}; }}).wheel"
    wheel = '{ file = "toy-1.0-cp311-cp311-win_amd64.whl"; sha256 = "1"; }'
    with pytest.raises(BuildError, match=r"toy-1\.0-cp311-cp311-win_amd64\.whl .* is for another platform"):
        nix("eval", "--impure", "--expr", f"({call} {wheel}).name")


def test_a_disk_too_small_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    prefetch.check_space(10**9, {tmp_path: 3 * 10**9})
    with pytest.raises(BuildError, match=r"has 2999 MB free, 3000 MB are needed .* nothing was fetched"):
        prefetch.check_space(10**9, {tmp_path: 3 * 10**9 - 10**6})


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("deb", "the Debian mirror cannot be reached: check the network"),
        ("wheel", "the Python index cannot be reached: check the network"),
    ],
)
def test_without_a_network_nobody_is_sent_to_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, why: str
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(BuildError, match=why) as caught:
        if where == "deb":
            downloads.fetch_debs(_stage(tmp_path), USERLAND, ["tini"])
        else:
            downloads.fetch_wheels(_stage(tmp_path), [next(e for e in ENVIRONMENTS["runtime"] if e["name"] == "six")])
    assert "make lock" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            "E: Failed to fetch x  Hash Sum mismatch",
            "sent other bytes than the lock's sha256: run the same command again",
        ),
        ("E: Failed to fetch x  404  Not Found [IP: 203.0.113.80 80]", "no longer has it: run `make lock`"),
        (
            "ERROR: Exception:\nTraceback (most recent call last):\nOSError: invalid path: /x.crt",
            "pip itself failed, OSError: invalid path: /x.crt: remove that cause",
        ),
        ("ERROR: No matching distribution found for six==1.99.0", "no longer has it: run `make lock`"),
        ("E: Failed to fetch x  Could not resolve 'nowhere.invalid'", "cannot be reached: check the network"),
        ("E: Failed to fetch x  503  Service Unavailable", "cannot be reached: check the network"),
    ],
)
def test_a_failed_download_says_why(said: str, why: str) -> None:
    assert why in downloads.reason(said, "the mirror")


def test_without_apt_the_other_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads.mirrors.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="apt-get is not on this machine: .*`nix build .#image-TIER`"):
        downloads.fetch_debs(_stage(tmp_path), USERLAND, ["tini"])


CONFLICT = '{\n<<<<<<< HEAD\n "groups": {},\n=======\n "groups": {"core": []},\n>>>>>>> other\n "packages": {}\n}\n'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (CONFLICT, "nix/userland/lock.json holds the marks of a merge conflict: run `make lock`"),
        ('{"groups": ', r"nix/userland/lock.json is not JSON \(.*\): run `make lock`"),
        ("{}", "lacks its groups, packages or buildroot: run `make lock`"),
        (
            '{"groups": {"core": ["gone"]}, "packages": {}, "buildroot": ""}',
            "has no gone, which its group core names: run `make lock`",
        ),
    ],
)
def test_a_broken_lock_of_the_userland_is_named(tmp_path: Path, text: str, why: str) -> None:
    (_stage(tmp_path) / "nix/userland/lock.json").write_text(text)
    with pytest.raises(BuildError, match=why):
        prefetch.prefetch(tmp_path, ["core"], ["runtime"])


def test_a_build_and_the_doctor_name_a_broken_lock_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (_stage(tmp_path) / "nix/userland/lock.json").write_text("<<<<<<< ours\n{}\n")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    for read in (lambda: build_image("smoke"), lambda: doctor.locked_bytes(["core"], ["runtime"])):
        with pytest.raises(BuildError, match="holds the marks of a merge conflict: run `make lock`"):
            read()


def test_a_broken_lock_of_the_environments_is_named(tmp_path: Path) -> None:
    path = _stage(tmp_path) / "nix/environments/lock.json"
    path.write_text('{"runtime": [{"name": "six", "version": "1", "file": "six-1-py3-none-any.whl"}]}')
    with pytest.raises(BuildError, match="six of runtime lacks sha256, size: run `make lock`"):
        prefetch.prefetch(tmp_path, ["core"], ["runtime"])
    with pytest.raises(BuildError, match="no environment huge in .*: run `make lock`"):
        prefetch.prefetch(tmp_path, ["core"], ["huge"])
    path.unlink()
    with pytest.raises(BuildError, match="cannot be read .No such file or directory.: run `make lock`"):
        prefetch.prefetch(tmp_path, ["core"], ["runtime"])
