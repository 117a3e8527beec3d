"""The host's command on machines of all kinds: whose store, which settings, and where the repository is."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearmeman_build import flake
from hearmeman_build.build import Image
from hearmeman_build.host import ROOT, choose_store, isolation, may_use, nix_settings, store_option, work_folder
from support.plain_user import ODD

TRIVIAL = 'derivation { name = "t"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; }'


@pytest.mark.parametrize(
    ("named", "writable", "daemon", "store"),
    [
        ("", True, False, ""),
        ("", True, True, ""),
        ("", False, True, ""),
        ("", False, False, "/home/me/store"),
        ("/my/store", True, True, "/my/store"),
    ],
)
def test_a_daemon_is_used_and_a_plain_user_without_one_has_a_store_of_its_own(
    named: str, writable: bool, daemon: bool, store: str
) -> None:
    assert choose_store(named, writable, daemon, Path("/home/me/store")) == store


def test_a_store_whose_files_are_shown_without_its_database_is_left_alone(tmp_path: Path) -> None:
    """As in `nix run` from a store elsewhere: a Nix with an empty database deletes what it does not know."""
    assert may_use(tmp_path / "nix")
    (tmp_path / "nix/store").mkdir(parents=True)
    assert may_use(tmp_path / "nix")
    (tmp_path / "nix/store/x-file").touch()
    assert not may_use(tmp_path / "nix")
    (tmp_path / "nix/var/nix/db").mkdir(parents=True)
    assert may_use(tmp_path / "nix")


def test_a_build_that_cannot_be_isolated_is_refused_with_what_to_do() -> None:
    """In a chroot nobody may make a user namespace; Nix alone would build without any, and may get other bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for made in (folder, folder / "root", folder / "home"):
            made.mkdir(exist_ok=True)
            made.chmod(0o755)
        shutil.chown(folder / "home", "nobody")
        words = ["build", "--impure", "--no-link", "--expr", TRIVIAL]
        script = (
            f"from hearmeman_build import host\ntry: host.nix(*{words})\nexcept host.BuildError as error: print(error)"
        )
        enter = 'mount --rbind / "$0"; cd /; exec chroot "$0" setpriv --reuid nobody --clear-groups "$@"'
        command = ["unshare", "--mount", "sh", "-c", enter, str(folder / "root"), sys.executable, "-c", script]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": f"{folder}/home",
            "PYTHONPATH": f"{ROOT}/python",
            "USER": "nobody",
        }
        environment |= {"HEARMEMAN_STORE": f"{folder}/home/store", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("no build can be isolated here: allow user namespaces"), done.stdout + done.stderr


def test_inside_nix_run_from_a_store_of_ones_own_the_way_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "store/x-file").mkdir(parents=True)
    assert "in the checkout, `nix/apps/NAME` does the same" in isolation(tmp_path)
    (tmp_path / "var/nix/db").mkdir(parents=True)
    assert "unprivileged_userns_clone=1" in isolation(tmp_path)


def test_a_socket_that_nobody_serves_is_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = tmp_path / "socket"
    monkeypatch.setenv("NIX_DAEMON_SOCKET_PATH", str(address))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("HEARMEMAN_STORE", raising=False)
    monkeypatch.delenv("NIX_REMOTE", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
        server.listen()
        assert store_option() == []
    assert address.exists()
    assert store_option() == ["--store", f"{tmp_path}/hearmeman/store"]


def test_the_machines_own_settings_are_kept_and_with_nixpkgs_its_caches_too() -> None:
    mine = "access-tokens = github.com=x"
    offline = nix_settings(nixpkgs_world=False, root_user=True, inherited=mine).splitlines()
    assert {mine, "substituters =", "sandbox = true", "build-users-group ="} <= {line.strip() for line in offline}
    online = nix_settings(nixpkgs_world=True, root_user=True, inherited=mine).splitlines()
    assert online == [mine, "extra-experimental-features = nix-command flakes", "warn-dirty = false"]


def test_without_a_checkout_to_write_to_a_run_works_in_the_cache(tmp_path: Path) -> None:
    assert work_folder(tmp_path, Path("/cache")) == tmp_path / ".work"
    assert work_folder(Path("/nix/store/x-source"), Path("/cache")) == Path("/cache/hearmeman")


def test_what_runs_leave_behind_is_no_part_of_the_repository(tmp_path: Path) -> None:
    """Without git; with it, git says what is part."""
    for name in (
        "flake.nix",
        "nix/a b.nix",
        "nix/workspace/x",
        "workspace/x",
        ".work/store/x",
        ".venv/bin/python",
        ".env",
        "a/__pycache__/b.pyc",
        "result-1/x",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "result").symlink_to("/nix/store/gone")
    (tmp_path / "nix/link").symlink_to("a b.nix")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "nix/socket"))
        assert flake.files(tmp_path) == ["flake.nix", "nix/a b.nix", "nix/link", "nix/workspace/x"]


def test_git_and_no_git_agree_about_the_repository(tmp_path: Path) -> None:
    if (ROOT / ".git").exists():
        for name in flake.files(ROOT):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name, follow_symlinks=False)
        assert flake.files(tmp_path) == sorted(flake.files(ROOT))


@pytest.fixture(scope="module")
def checkout(image: Image) -> Iterator[Path]:
    """A checkout of its own at a plain path, and beside it the home of a person who followed the README's line about flakes."""
    with tempfile.TemporaryDirectory() as name:
        for file in flake.files(ROOT):
            (Path(name, "checkout") / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, Path(name, "checkout") / file, follow_symlinks=False)
        [line] = [line for line in (ROOT / "README.md").read_text().splitlines() if "/nix.conf" in line]
        subprocess.run(["sh", "-euc", line], env={**os.environ, "HOME": f"{name}/home"}, check=True)
        yield Path(name, "checkout")


def _shown(checkout: Path, *command: str) -> str:
    """What an app prints that is called below `checkout` or elsewhere, in the home beside it."""
    # The README turns flakes on; the rest is for this machine, whose Nix has neither build users nor the network.
    settings = "\n".join(line for line in nix_settings(False, os.geteuid() == 0).splitlines() if "features" not in line)
    environment = {**os.environ, "NIX_CONFIG": settings, "HOME": str(checkout.parent / "home")}
    for name in ("HEARMEMAN_ROOT", "PYTHONPATH", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        environment.pop(name, None)
    environment.setdefault("HEARMEMAN_STORE", "".join(store_option()[1:]))
    done = subprocess.run(["sh", "-euc", *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("where", ["docs", "/"])
def test_an_app_runs_from_a_subfolder_of_the_checkout_and_from_anywhere(
    image: Image, checkout: Path, where: str
) -> None:
    """At a plain path, since Nix 2.8 itself takes no other."""
    words = ["nix", "run", *store_option(), f"path:{checkout}#inspect", *flake.offline_inputs()]
    assert image.digest in _shown(checkout, 'cd "$0"; exec "$@"', str(checkout / where), *words)
    made = checkout.parent / "home/.cache/hearmeman" if where == "/" else checkout / ".work"
    assert (made / "results/image-smoke").is_symlink()


def test_without_nix_run_an_app_does_the_same_at_any_path_from_anywhere(image: Image, checkout: Path) -> None:
    odd = checkout.with_name(ODD)
    shutil.copytree(checkout, odd, symlinks=True)
    assert image.digest in _shown(checkout, 'cd /; exec "$0"', str(odd / "nix/apps/inspect"))


def test_libraries_that_lack_are_named_with_what_installs_them(tmp_path: Path) -> None:
    def said(*words: str) -> str:
        command = ["/usr/bin/python3", "-S", str(ROOT / "nix/apps/run.py"), *words]
        done = subprocess.run(command, env={"HEARMEMAN_ROOT": str(tmp_path)}, capture_output=True, text=True)
        assert done.returncode == 1
        return done.stderr

    # A folder that is no checkout is not taken for one, and not copied as one.
    assert said("inspect") == f"error: HEARMEMAN_ROOT={tmp_path} holds no hearmeman: unset it, or name a checkout\n"
    for name in ("flake.nix", "nix/tiers.nix", "nix/apps/run.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    lacking = said("hearmeman", "models", "list")
    assert "pydantic, rich, supervisor" in lacking
    assert lacking.endswith(f": not installed here: run `./setup.sh test` in {tmp_path}, then try again\n")


def test_odd_folders_of_sources_are_read(tmp_path: Path) -> None:
    odd = tmp_path / ODD
    odd.mkdir()
    (odd / "x.py").write_text("x = 1\n")
    reference = flake.path_reference(odd)
    assert " " not in reference and "#" not in reference
    assert (Path(reference.removeprefix("path:")) / "x.py").read_text() == "x = 1\n"
