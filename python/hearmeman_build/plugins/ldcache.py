"""Makes /etc/ld.so.cache with the image's own ldconfig, which is static and so runs in the build."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from hearmeman_build.errors import BuildError
from hearmeman_build.plugins.layer import Entry, file_entry

_FOLDERS = ("usr/lib/", "usr/lib/x86_64-linux-gnu/", "usr/local/lib/")
_LDCONFIG = "usr/sbin/ldconfig"


def cache(tree: Mapping[str, Entry], folder: Path) -> dict[str, Entry]:
    """The cache's entry for `tree`; libraries are laid out below `folder`, which must be empty.

    Raises:
        BuildError: ldconfig failed.
    """
    if _LDCONFIG not in tree:
        return {}
    for path in (_LDCONFIG, *sorted(tree)):
        entry, (parent, _, name) = tree[path], path.rpartition("/")
        library = f"{parent}/" in _FOLDERS and ".so" in name
        if library or path in (_LDCONFIG, "etc/ld.so.conf") or path.startswith("etc/ld.so.conf.d/"):
            _lay(entry, tree, folder)
    for top in ("lib", "lib64", "sbin"):
        (folder / top).symlink_to(f"usr/{top}")
    (folder / "var/cache/ldconfig").mkdir(parents=True)
    done = subprocess.run(
        [folder / _LDCONFIG, "-r", folder, "-X"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={}
    )
    if done.returncode != 0:
        raise BuildError(f"ldconfig failed: {done.stdout.strip()[-500:]}")
    return {"etc/ld.so.cache": file_entry("etc/ld.so.cache", (folder / "etc/ld.so.cache").read_bytes())}


def _lay(entry: Entry, tree: Mapping[str, Entry], folder: Path) -> None:
    target = folder / entry.path
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() or target.is_symlink():
        return
    if entry.kind == "link":
        target.symlink_to(entry.target)
    elif entry.kind == "hard":
        _lay(tree[entry.target], tree, folder)
        target.hardlink_to(folder / entry.target)
    elif entry.open is not None:
        with target.open("wb") as file:
            shutil.copyfileobj(entry.open(), file)
        target.chmod(entry.mode)
