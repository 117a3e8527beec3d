"""Builds the userland layer: pinned .debs merged from their data tars, fixups applied, stdlib compiled."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

from hearmeman_build.errors import BuildError
from hearmeman_build.plugins import debs, dpkg, fixups, ldcache
from hearmeman_build.plugins.bytecode import cache_path, compile_module
from hearmeman_build.plugins.layer import Entry, dir_entry, file_entry, link_entry, write_layer
from hearmeman_build.plugins.plugin import Build, run

_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_PYTHON = ("usr/lib/python3.11/", "usr/lib/python3/dist-packages/")


def merged(path: str) -> str:
    """Where `path` lies in a merged /usr: `bin/x` -> `usr/bin/x`. Leading `./` or `/` is dropped."""
    path = path.removeprefix("./").strip("/")
    first, slash, rest = path.partition("/")
    return f"usr/{first}{slash}{rest}" if first in _MERGED and slash else path


class _Slice(io.RawIOBase):
    """One member's bytes inside a spooled tar."""

    def __init__(self, file: Path, offset: int, size: int) -> None:
        self.file = file.open("rb")
        self.file.seek(offset)
        self.left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self.file.read(min(len(view), self.left))
        view[: len(data)] = data
        self.left -= len(data)
        return len(data)

    def close(self) -> None:
        self.file.close()
        super().close()


def _opener(file: Path, offset: int, size: int) -> Callable[[], IO[bytes]]:
    return lambda: io.BufferedReader(_Slice(file, offset, size))


def entries_of(tar_file: Path) -> list[Entry]:
    """The members of one spooled data tar, merged-/usr paths, contents read when asked for."""
    found = []
    with tarfile.open(tar_file, mode="r:") as tar:
        for info in tar:
            path = merged(info.name)
            if not path or path == ".":
                continue
            mode, uid, gid = info.mode & 0o7777, info.uid, info.gid
            if info.isdir():
                if path not in _MERGED:
                    found.append(Entry(path, "dir", mode, uid, gid))
            elif info.issym():
                found.append(Entry(path, "link", 0o777, uid, gid, target=info.linkname))
            elif info.islnk():
                found.append(Entry(path, "hard", mode, uid, gid, target=merged(info.linkname)))
            elif info.isreg():
                opener = _opener(tar_file, info.offset_data, info.size)
                found.append(Entry(path, "file", mode, uid, gid, size=info.size, open=opener))
            else:
                raise BuildError(f"{tar_file.name}: {info.name} is neither file, directory nor link")
    return found


def merge(packages: dict[str, list[Entry]]) -> dict[str, Entry]:
    """All packages' entries in one tree; the first directory wins, a file shipped twice is an error."""
    tree: dict[str, Entry] = {f"{top}": link_entry(top, f"usr/{top}") for top in ("bin", "sbin", "lib", "lib64")}
    tree |= {f"usr/{top}": dir_entry(f"usr/{top}") for top in ("bin", "sbin", "lib", "lib64")}
    owner: dict[str, str] = {}
    for package, entries in packages.items():
        for entry in entries:
            if entry.path not in tree:
                tree[entry.path] = entry
                owner[entry.path] = package
            elif not (entry.kind == "dir" and tree[entry.path].kind in ("dir", "link")):
                raise BuildError(f"/{entry.path} is in both {owner.get(entry.path)} and {package}: drop one of them")
    return tree


def compiled(tree: dict[str, Entry]) -> dict[str, Entry]:
    """The bytecode of Debian's standard library and packages."""
    added = {}
    for path, entry in tree.items():
        if entry.kind == "file" and path.endswith(".py") and path.startswith(_PYTHON) and entry.open:
            code = compile_module(entry.open().read(), f"/{path}")
            if code is not None:
                added[cache_path(path)] = file_entry(cache_path(path), code)
    return added


def changes(tree: dict[str, Entry], below: dict[str, Entry]) -> dict[str, Entry]:
    """What a layer of `tree` must hold on top of `below`: new and changed paths, with the folders that they lie in.

    The folders come with `tree`'s owners and modes: a layer that names a folder sets them.
    """
    changed = {path: entry for path, entry in tree.items() if not _same(entry, below.get(path))}
    for path in list(changed):
        parent = path.rpartition("/")[0]
        while parent and parent in tree and tree[parent].kind == "dir":
            changed[parent] = tree[parent]
            parent = parent.rpartition("/")[0]
    return changed


def _same(entry: Entry, other: Entry | None) -> bool:
    if other is None or entry is other:
        return other is not None
    if replace(entry, open=None) != replace(other, open=None):
        return False
    return entry.open is None or other.open is None or entry.open().read() == other.open().read()


def build(job: Build) -> None:
    """Merge `debs` over `below`, which lie in the layers below, and write what they add and change."""
    with tempfile.TemporaryDirectory() as folder:
        packages: dict[str, list[Entry]] = {}
        stanzas: dict[str, dict[str, bytes]] = {}

        def installed(debs_of: list[dict[str, str]], libraries: str) -> dict[str, Entry]:
            for deb in debs_of:
                name, path = deb["package"], Path(deb["file"])
                spool_path = Path(folder, f"{name}.tar")
                with spool_path.open("wb") as spool:
                    debs.unpack(path, "data", job.zstd, spool)
                packages[name] = entries_of(spool_path)
                stanzas[name] = debs.control(path, job.zstd)
            if not packages:
                return {}
            tree = fixups.apply(merge(packages) | dpkg.database(packages, stanzas))
            return tree | ldcache.cache(tree, Path(folder, libraries))

        below = installed(job.attrs["below"], "below")
        tree = changes(installed(job.attrs["debs"], "here"), below)
        tree |= compiled(tree)
        write_layer(tree, job.out, job.attrs["created_by"], job.zstd, job.attrs["level"])


if __name__ == "__main__":
    run(build)
