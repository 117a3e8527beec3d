"""The Nix store: where a locked file lies in it, whether it is there and whole, and how it gets there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from hearmeman_build.errors import BuildError
from hearmeman_build.host import WORK, installed, nix, store_file, store_option


def fixed_path(name: str, sha256: str, recursive: bool = False) -> str:
    """The store path of a fixed-output file or tree."""
    flags = ["--recursive"] if recursive else []
    return nix("--print-fixed-path", *flags, "sha256", sha256, name, program="nix-store")


def flat_paths(wanted: Mapping[str, str]) -> dict[str, str]:
    """Name -> store path for flat files, from name -> sha256; the naming rule of Nix, computed here because 100 calls take seconds."""
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


def damaged(paths: Sequence[str]) -> list[str]:
    """Those valid paths whose bytes are not what Nix wrote: cut short, changed or gone from the disk."""
    here = [path for path in paths if os.path.lexists(store_file(path))]
    gone = sorted(set(paths) - set(here))
    if not here:
        return gone
    try:
        nix("--verify-path", *here, program="nix-store")
    except BuildError as error:
        return gone + [path for path in here if f"'{path}' was modified" in error.said]
    return gone


def repair(path: Path) -> str:
    """Say how a store makes a damaged path of its own again; a build would take it as it is."""
    root, place = re.findall(r"^(.*?)(/nix/store/[^/]+)", str(path.resolve()))[0]
    where = f"--store {root} " if root else ""
    return (
        f"the store is damaged: run as its owner `nix-store {where}--repair-path {place}`, then the same command again"
    )


@contextlib.contextmanager
def inflated(blob: Path) -> Iterator[IO[bytes]]:
    """The tar of a layer in the store; it need not be read to its end.

    Raises:
        BuildError: zstd is not installed, or the layer is damaged.
    """
    with installed("zstd"):
        child = subprocess.Popen(["zstd", "-dcq", str(blob)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with child:
        output: IO[bytes] = child.stdout  # type: ignore[assignment]
        cut: tarfile.TarError | None = None
        try:
            yield output
        except tarfile.TarError as error:
            cut = error
        finally:
            output.close()
            said = child.stderr.read().decode(errors="replace").strip() if child.stderr else ""
    if cut is not None or child.returncode not in (0, -signal.SIGPIPE):
        raise BuildError(f"{blob} cannot be read, {said or cut}: {repair(blob)}")


def discard(paths: Sequence[str]) -> None:
    """Take damaged paths out of the store, so that they are fetched again.

    Raises:
        BuildError: another user's store does not let them go; the message holds the command for its owner.
    """
    command = ["--delete", "--ignore-liveness", *paths]
    try:
        nix(*command, program="nix-store")
    except BuildError as error:
        raise BuildError(
            f"{len(paths)} files in the store are damaged and cannot be removed by this user: run as its owner "
            f"`sudo nix-store {' '.join(command)}`, then the same command again\n{error}"
        ) from error


def link_or_copy(there: Path, here: Path) -> None:
    """Have a file in another place too, without its bytes twice where the filesystem allows it."""
    try:
        os.link(there, here)
    except OSError:
        shutil.copyfile(there, here)


def add_files(files: Mapping[str, Path]) -> None:
    """Put files into the store under their names."""
    if not files:
        return
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        links = []
        for name, path in files.items():
            link = Path(folder, name)
            link_or_copy(path, link)
            links.append(str(link))
        nix("--add-fixed", "sha256", *links, program="nix-store")


def keep(paths: Sequence[str]) -> None:
    """Hold `paths` against the garbage collector, which a full disk is a reason to run: by roots in a store of one's own,
    by .work/roots in the machine's.
    """
    if own := store_option()[1:]:
        roots = Path(*own, "nix/var/nix/gcroots/hearmeman")
        roots.mkdir(parents=True, exist_ok=True)
        for path in paths:
            with contextlib.suppress(FileExistsError):
                (roots / Path(path).name).symlink_to(path)
        return
    roots = WORK / "roots"
    roots.mkdir(parents=True, exist_ok=True)
    held = {str(link.readlink()) for link in roots.iterdir() if link.is_symlink()}
    missing = sorted(set(paths) - held)
    if missing:
        # One call for all: Nix numbers the links after the first.
        name = hashlib.sha256("\n".join(missing).encode()).hexdigest()[:16]
        nix("--realise", *missing, "--add-root", str(roots / name), "--indirect", program="nix-store")
