"""A store whose contents are damaged, or whose disk is full: found, repaired, and said in words that help."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearmeman_build import downloads, prefetch, store
from hearmeman_build.build import build_image, explained
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT, failed, nix, store_file

USERLAND = json.loads((ROOT / "nix/userland/lock.json").read_text())


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store of this test's own."""
    folder = tmp_path / "store"
    monkeypatch.setenv("HEARMEMAN_STORE", str(folder))
    yield folder
    subprocess.run(["chmod", "-R", "u+w", str(tmp_path)], check=True)


def _lock(folder: Path) -> Path:
    """A repository whose userland is one package and whose buildroot needs none."""
    lock = {
        **USERLAND,
        "groups": {"core": ["tini"], "buildroot": []},
        "packages": {"tini": USERLAND["packages"]["tini"]},
    }
    for name, content in (("userland", lock), ("environments", {"none": []})):
        (folder / "nix" / name).mkdir(parents=True)
        (folder / "nix" / name / "lock.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("harm", ["cut", "changed", "gone"])
def test_a_damaged_file_in_the_store_is_fetched_again(own_store: Path, tmp_path: Path, harm: str) -> None:
    """Which is what every message about a damaged package advises: `make prefetch`."""
    entry = USERLAND["packages"]["tini"]
    name = downloads.store_name(entry["file"])
    files = downloads.fetch_debs(tmp_path, USERLAND, ["tini"])
    store.add_files({name: files["tini"]})
    path = store.flat_path(name, entry["sha256"])
    assert store.damaged([path]) == []
    there = store_file(path)
    there.parent.chmod(0o755)
    there.chmod(0o644)
    if harm == "gone":
        there.unlink()
    else:
        data = there.read_bytes()
        there.write_bytes(data[:100] if harm == "cut" else bytes([data[0] ^ 1]) + data[1:])
    said: list[str] = []
    with pytest.raises(BuildError, match="buildroot"):
        # Its own buildroot, which is of no packages here, comes after the packages.
        prefetch.prefetch(_lock(tmp_path / "repository"), ["core"], [], said.append)
    assert f"1 files in the store are damaged and are fetched again: {name}" in said
    assert downloads.sha256_of(there) == entry["sha256"]
    assert store.damaged([path]) == []


def test_a_part_that_is_not_in_the_store_is_named_with_what_fetches_it(own_store: Path) -> None:
    with pytest.raises(BuildError, match=r" is not in the store: run `nix/apps/prefetch --tier smoke`"):
        build_image("smoke")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "layer-x: error: a.deb is truncated: run `make prefetch`, which fetches damaged files again",
            "run `{}`, which",
        ),
        ("error: builder for '/nix/store/j8j1-layer-x.drv' failed due to signal 7 (Bus error)", "the cause: run `{}`,"),
        (
            "unable to download 'file:///not-in-the-store/run-make-prefetch-first/a.whl'",
            "a.whl is not in the store: run",
        ),
    ],
)
def test_a_damaged_part_is_fetched_by_a_command_for_the_image_that_is_built(said: str, told: str) -> None:
    """`make prefetch` alone looks at the smoke image's files, and would not repair another's."""
    command = "nix/apps/prefetch --tier consumer"
    noise = (
        "warning: not writing modified lock file of flake 'path:/tmp/x':\n• Updated input 'nixpkgs':\n"
        "    'github:NixOS/nixpkgs/1' (2025-12-29)\n  → 'path:/tmp/x/nix/offline/nixpkgs' (2026-11-26)\n"
    )
    shown = explained(failed("nix build", noise + said), command)
    assert told.format(command) in shown
    assert "make prefetch" not in shown
    assert "Updated input" not in shown


def test_what_the_store_built_is_made_again_as_the_message_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build takes what is registered as it is: only a repair looks at its bytes."""
    folder = tmp_path / "store"
    places = "sandbox-paths = /bin /lib /lib64 /usr\nsubstituters =\nsandbox = true\nbuild-users-group ="
    monkeypatch.setenv("NIX_CONFIG", places)
    expression = (
        'derivation { name = "t"; system = "x86_64-linux"; builder = "/bin/sh"; args = ["-c" "echo whole > $out"]; }'
    )

    def run(*words: str) -> str:
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    recipe = run("nix-instantiate", "--store", str(folder), "--expr", expression)
    built = run("nix-store", "--store", str(folder), "-r", recipe)
    there = folder / built.removeprefix("/")
    there.chmod(0o644)
    there.write_text("other")
    run("nix-store", "--store", str(folder), "-r", recipe)
    assert there.read_text() == "other"
    command = re.search("`(nix-store .*)`", store.repair(there))
    assert command is not None
    run(*command[1].split())
    assert there.read_text() == "whole\n"
    assert f"`nix-store --repair-path {built}`" in store.repair(Path(built))
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)


def test_a_damaged_tree_is_found(own_store: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("whole")
    path = nix("store", "add-path", "--name", "tree", str(tree))
    assert store.damaged([path]) == []
    there = store_file(path) / "file"
    there.chmod(0o644)
    there.write_text("other")
    assert store.damaged([path]) == [path]
    store.discard([path])
    assert store.invalid_paths([path]) == {path}


_FULL = """
import re, shlex, subprocess, sys
from pathlib import Path
from hearmeman_build import host, store

def add(name):
    Path("/dev/shm", name).write_bytes(bytes(6 << 20))
    return host.nix("store", "add-path", f"/dev/shm/{name}")

Path("/dev/shm/kept").write_text("what `make prefetch` brought")
kept = host.nix("store", "add-path", "/dev/shm/kept")
store.keep([kept])
add("garbage")
try:
    add("wanted")
except host.BuildError as error:
    [command] = re.findall("free some space, with `(nix-store .*)` for example", str(error))
    subprocess.run(shlex.split(command), check=True, stdout=sys.stderr)
    assert Path(host.store_file(add("wanted"))).stat().st_size == 6 << 20
    assert store.invalid_paths([kept]) == set()
    print("freed")
"""


def test_space_is_freed_for_a_build_as_advised(tmp_path: Path) -> None:
    """On a filesystem of its own, where Nix has room for its database and one of two files."""
    mount = tmp_path / "disk"
    mount.mkdir()
    inside = ["bwrap", "--dev-bind", "/", "/", "--tmpfs", "/dev/shm", "--size", str(20 << 20), "--tmpfs", str(mount)]
    environ = {**os.environ, "HEARMEMAN_STORE": f"{mount}/store"}
    done = subprocess.run([*inside, "--", sys.executable, "-c", _FULL], env=environ, capture_output=True, text=True)
    assert done.stdout == "freed\n", done.stderr


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A layer in a store of somebody's own: one file of 1 MB."""
    blob = tmp_path / "nix/store/x-layer/layer.tar.zst"
    blob.parent.mkdir(parents=True)
    (tmp_path / "file").write_bytes(os.urandom(1 << 20))
    subprocess.run(["tar", "-C", str(tmp_path), "--zstd", "-cf", str(blob), "file"], check=True)
    return blob


def test_a_layer_is_read_whole_or_in_part(layer: Path) -> None:
    with store.inflated(layer) as output, tarfile.open(fileobj=output, mode="r|") as tar:
        assert [member.size for member in tar] == [1 << 20]
    with store.inflated(layer) as output:
        assert output.read(4) == b"file"


@pytest.mark.parametrize("content", [b"", b"no layer"])
def test_a_damaged_layer_is_told_with_what_repairs_it(layer: Path, tmp_path: Path, content: bytes) -> None:
    layer.write_bytes(content or layer.read_bytes()[:500_000])
    with (
        pytest.raises(BuildError, match=f"`nix-store --store {tmp_path} --repair-path /nix/store/x-layer`"),
        store.inflated(layer) as output,
        tarfile.open(fileobj=output, mode="r|") as tar,
    ):
        tar.getmembers()


def test_without_zstd_a_layer_asks_for_it(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BuildError, match=r"zstd is not installed: run `./setup.sh demo`"), store.inflated(layer):
        pass


def test_a_full_disk_is_said_with_what_to_do(tmp_path: Path) -> None:
    """On a real filesystem of 4 MB."""
    big = tmp_path / "big"
    big.write_bytes(os.urandom(8 << 20))
    script = (
        "import sys; from hearmeman_build.errors import BuildError; from hearmeman_build.host import nix\n"
        f"try: nix('store', 'add-file', {str(big)!r})\n"
        "except BuildError as error: sys.exit(str(error))"
    )
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["bwrap", "--dev-bind", "/", "/", "--size", str(4 << 20), "--tmpfs", str(mount)]
    environment = {**os.environ, "HEARMEMAN_STORE": str(mount / "store"), "PYTHONPATH": str(ROOT / "python")}
    done = subprocess.run([*command, sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"the disk is full ({mount}/store/nix/store has " in done.stderr
    assert f"`nix-store --store {mount}/store --gc`" in done.stderr
