"""What the host's side shares: finding the repository, calling Nix, writing files whole."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hearmeman_build.errors import BuildError

ROOT = Path(os.environ.get("HEARMEMAN_ROOT") or Path(__file__).resolve().parents[2])
"""The repository; `nix run` starts this from the store and names the checkout."""


def work_folder(root: Path, cache: Path) -> Path:
    """Everything that a run makes and may be deleted: in the checkout, or in `cache` where there is none to write to."""
    return root / ".work" if writable_checkout(root) else cache / "hearmeman"


def writable_checkout(root: Path) -> bool:
    """Whether `root` is a person's checkout. Root may write into the store, and must not."""
    return os.access(root, os.W_OK) and not root.is_relative_to("/nix/store")


WORK = work_folder(ROOT, Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"))

_OPTIONS = {
    "extra-experimental-features": "nix-command flakes",
    "substituters": "",
    "sandbox": "true",
    "sandbox-fallback": "false",
    "sandbox-paths": "",
    "warn-dirty": "false",
}


def in_nixpkgs_world() -> bool:
    """Whether the real nixpkgs and nix2container are used: HEARMEMAN_WORLD=nixpkgs, which `nix run` sets."""
    return os.environ.get("HEARMEMAN_WORLD", "") == "nixpkgs"


def nix_settings(nixpkgs_world: bool, root_user: bool, inherited: str = "") -> str:
    """NIX_CONFIG for every Nix call: sandboxed, nothing of the host lent to builds, no binary cache.

    With the real nixpkgs the machine's own configuration holds: its daemon, its caches. Settings go by the environment,
    since newer Nix refuses a flake's arguments on the command line before it has read that flakes are wanted.
    """
    options = dict(_OPTIONS)
    if nixpkgs_world:
        options = {key: _OPTIONS[key] for key in ("extra-experimental-features", "warn-dirty")}
    elif root_user:
        # Debian's nix-bin alone makes no build users; the sandbox isolates all the same.
        options["build-users-group"] = ""
    return "\n".join([inherited, *(f"{key} = {value}" for key, value in options.items())]).strip() + "\n"


def choose_store(named: str, local_writable: bool, daemon: bool, own: Path) -> str:
    """Which store to use; "" is the machine's own.

    `named` is HEARMEMAN_STORE; `own` is where a plain user keeps a store on a machine whose /nix is another's and has no
    daemon.
    """
    return named or ("" if local_writable or daemon else str(own))


def _daemon_answers() -> bool:
    """Whether a Nix daemon serves this machine's store."""
    if os.environ.get("NIX_REMOTE"):
        return True
    state = os.environ.get("NIX_STATE_DIR") or "/nix/var/nix"
    address = os.environ.get("NIX_DAEMON_SOCKET_PATH") or f"{state}/daemon-socket/socket"
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(address)
        except OSError:
            return False
    return True


def is_shown(store: Path) -> bool:
    """Whether only the files of a store elsewhere are at `store`, usually /nix, as inside `nix run`: without its database."""
    files = store / "store"
    return not (store / "var/nix/db").exists() and files.is_dir() and any(files.iterdir())


def may_use(store: Path) -> bool:
    """Whether this process may write the store at `store`, usually /nix.

    A Nix that took the files of another store for its own would hold each for a remnant, and delete it.
    """
    if is_shown(store):
        return False
    database = store / "var/nix/db"
    places = [database, *database.parents]
    # Not by the user's number: root of a user namespace may write no more than the user who made it.
    return os.access(next(place for place in places if place.exists()), os.W_OK)


def store_option() -> list[str]:
    """Nix's option for another store than /nix: HEARMEMAN_STORE, or a plain user's own where there is no daemon."""
    local = may_use(Path("/nix"))
    own = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "hearmeman/store"
    named = os.environ.get("HEARMEMAN_STORE", "")
    store = choose_store(named, local, not named and not local and _daemon_answers(), own)
    return ["--store", store] if store else []


def store_file(path: str) -> Path:
    """Where a store path lies on this machine's disk."""
    option = store_option()
    return Path(option[1] + path) if option else Path(path)


def call(program: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment of a Nix call."""
    settings = nix_settings(in_nixpkgs_world(), os.geteuid() == 0, os.environ.get("NIX_CONFIG", ""))
    return [program, *arguments, *store_option()], {**os.environ, "NIX_CONFIG": settings}


@contextlib.contextmanager
def installed(program: str) -> Iterator[None]:
    """Say how to get a program that is started inside and is not there.

    Raises:
        BuildError: it is not installed.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise BuildError(f"{program} is not installed: run `./setup.sh demo`") from error


def nix(*arguments: str, program: str = "nix") -> str:
    """Run Nix and return its standard output.

    Raises:
        BuildError: Nix is not installed, or it failed; its last lines are in the message.
    """
    command, environment = call(program, *arguments)
    with installed(program):
        # Not in ROOT: where that lies in the store, Nix takes every argument for a store path.
        done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise failed(f"{program} {arguments[0]}", done.stderr)
    return done.stdout.strip()


ANSI = re.compile(r"\x1b\[[0-9;]*m")
"""Nix's colours."""
_NOT_ISOLATED = re.compile("namespaces that are required for sandboxing|cloning builder process")
"""What Nix 2.26 and 2.8 say where they may make no namespace."""


_STAND_INS = re.compile(r"^warning: not writing modified lock file.*\n(?:[• ].*\n)*", re.MULTILINE)
"""What Nix says of each override of an input: nothing that a person can do something about."""


def failed(what: str, said: str) -> BuildError:
    """The error for a program that failed and printed `said`."""
    last = "\n".join([f"{what} failed:", *_STAND_INS.sub("", ANSI.sub("", said)).strip().splitlines()[-12:]])
    if _NOT_ISOLATED.search(said):
        return BuildError(f"no build can be isolated here: {isolation()}\n{last}", said)
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return BuildError(f"{full_disk()}\n{last}", said)
    return BuildError(last, said)


def isolation(store: Path = Path("/nix")) -> str:
    """What to do where no namespace can be made, which every build gets."""
    if is_shown(store):
        return (
            "`nix run` from a store in your home lets the program make no user namespaces; in the checkout, "
            "`nix/apps/NAME` does the same as `nix run .#NAME`"
        )
    return (
        "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, on Ubuntu also "
        "kernel.apparmor_restrict_unprivileged_userns=0); a container has to be privileged"
    )


def full_disk() -> str:
    """What to do when the disk is full; the command is for the store that is used."""
    places = {str(place): free_bytes(place) for place in (store_file("/nix/store"), WORK)}
    free = ", ".join(f"{place} has {size / 1e6:.0f} MB free" for place, size in places.items())
    return (
        f"the disk is full ({free}): free some space, with `{collect()}` for example, and run the same command again, "
        "which continues with what is there"
    )


def collect() -> str:
    """The command that takes what nothing holds out of the store that is used."""
    return shlex.join(["nix-store", *store_option(), "--gc"])


def free_bytes(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, fsync, rename."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_named(path: Path, text: str) -> None:
    """Write a file that a person named: whole, or into a device or pipe such as /dev/stdout, which stays what it is."""
    if path.is_relative_to("/dev") or (path.exists() and not path.is_file()):
        path.write_text(text)
    else:
        write_atomically(path.resolve(), text.encode())
