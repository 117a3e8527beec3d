"""Makes the buildroot on the host, the same tree that nix/buildroot.nix makes, and its Nix hash."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from hearmeman_build.errors import BuildError
from hearmeman_build.host import nix

_DROPPED = ("etc", "var", "usr/share/doc", "usr/share/man", "usr/share/locale")


def make_buildroot(debs: list[Path], out: Path) -> Path:
    """Unpack `debs` into `out`, which must not exist.

    Raises:
        BuildError: a package does not unpack; the message names it.
    """
    for top in ("bin", "sbin", "lib", "lib64"):
        (out / "usr" / top).mkdir(parents=True)
        (out / top).symlink_to(f"usr/{top}")
    for deb in debs:
        unpack = subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        flags = ["--keep-directory-symlink", "--no-same-owner", "--no-same-permissions"]
        done = subprocess.run(
            ["tar", "-C", out, *flags, "-xf", "-"], stdin=unpack.stdout, stderr=subprocess.PIPE, text=True
        )
        if unpack.wait() != 0 or done.returncode != 0:
            raise BuildError(f"{deb.name} does not unpack: run `make prefetch`, which fetches damaged files again")
    for path in _DROPPED:
        shutil.rmtree(out / path, ignore_errors=True)
    # It is a link to /etc, which would be the host's.
    (out / "usr/lib/python3.11/sitecustomize.py").unlink(missing_ok=True)
    subprocess.run(["chmod", "-R", "u+w,go-w", out], check=True)
    return out


def tree_hash(path: Path) -> str:
    """The recursive sha256 of a tree, SRI form."""
    return nix("hash", "path", str(path))
