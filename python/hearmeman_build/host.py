"""What the host's side shares: finding the repository, calling Nix, writing files whole."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from hearmeman_build.errors import BuildError

ROOT = Path(os.environ.get("HEARMEMAN_ROOT") or Path(__file__).resolve().parents[2])
"""The repository; `nix run` starts this from the store and names the checkout."""

WORK = ROOT / ".work"
"""Everything that a run makes and may be deleted."""

_OPTIONS = {
    "experimental-features": "nix-command flakes",
    "substituters": "",
    "sandbox": "true",
    "sandbox-paths": "",
    "warn-dirty": "false",
}


def in_nixpkgs_world() -> bool:
    """Whether the real nixpkgs and nix2container are used: HEARMEMAN_WORLD=nixpkgs, which `nix run` sets."""
    return os.environ.get("HEARMEMAN_WORLD", "") == "nixpkgs"


def nix_options(root_user: bool) -> list[str]:
    """Options for every Nix call: sandboxed, nothing of the host lent to builds, no binary cache.

    With the real nixpkgs the machine's own configuration holds: its daemon, its caches.
    """
    options = (
        {key: _OPTIONS[key] for key in ("experimental-features", "warn-dirty")} if in_nixpkgs_world() else _OPTIONS
    )
    if root_user and not in_nixpkgs_world():
        # Debian's nix-bin alone makes no build users; the sandbox isolates all the same.
        options = {**options, "build-users-group": ""}
    return [word for key, value in options.items() for word in ("--option", key, value)]


def store_option() -> list[str]:
    """Another store than /nix: HEARMEMAN_STORE, or a folder of one's own for an unprivileged user."""
    store = os.environ.get("HEARMEMAN_STORE", "")
    if not store and os.geteuid() != 0 and not os.access("/nix/var/nix/db", os.W_OK):
        store = str(Path.home() / ".local/share/hearmeman/store")
    return ["--store", store] if store else []


def store_file(path: str) -> Path:
    """Where a store path lies on this machine's disk."""
    option = store_option()
    return Path(option[1] + path) if option else Path(path)


def nix(*arguments: str, program: str = "nix", quiet: bool = True) -> str:
    """Run Nix and return its standard output.

    Raises:
        BuildError: Nix is not installed, or it failed; its last lines are in the message.
    """
    command = [program, *arguments, *nix_options(os.geteuid() == 0), *store_option()]
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None, text=True
        )
    except FileNotFoundError as error:
        raise BuildError(f"{program} is not installed: run `./setup.sh demo`") from error
    if done.returncode != 0:
        said = (done.stderr or "").strip().splitlines()
        raise BuildError("\n".join([f"{program} {arguments[0]} failed:", *said[-12:]]))
    return done.stdout.strip()


def offline_inputs() -> list[str]:
    """The overrides that put the stand-ins in place of nixpkgs and nix2container; none with the real ones."""
    if in_nixpkgs_world():
        return []
    return [
        "--override-input",
        "nixpkgs",
        f"path:{ROOT}/nix/offline/nixpkgs",
        "--override-input",
        "nix2container",
        f"path:{ROOT}/nix/offline/nix2container",
        "--no-write-lock-file",
    ]


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, fsync, rename."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
