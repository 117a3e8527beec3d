"""Builds a layer from source trees in the store: our package, ComfyUI, a custom node, plain data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from hearmeman_build.errors import BuildError
from hearmeman_build.plugins.bytecode import cache_path, compile_module
from hearmeman_build.plugins.layer import Entry, file_entry, link_entry, write_layer
from hearmeman_build.plugins.plugin import Build, run


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def plan(source: Path, target: str, compiled: bool = True) -> dict[str, Entry]:
    """The files under `source` (or the one file) at `target`, Python compiled unless not; empty folders are left out.

    Raises:
        BuildError: `source` is not there.
    """
    if source.is_file():
        return _file(source, target, compiled)
    if not source.is_dir():
        raise BuildError(f"{source} is not in the store: build again; if it was removed, run `make prefetch` first")
    tree: dict[str, Entry] = {}
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(f for f in folders if f != "__pycache__")
        for name in sorted(files):
            path = Path(folder, name)
            tree |= _file(path, f"{target}/{path.relative_to(source)}".lstrip("/"), compiled)
    return tree


def _file(path: Path, target: str, compiled: bool) -> dict[str, Entry]:
    if path.is_symlink():
        return {target: link_entry(target, str(path.readlink()))}
    status = path.stat()
    mode = 0o755 if status.st_mode & 0o111 else 0o644
    tree = {target: Entry(target, "file", mode, size=status.st_size, open=_opener(path))}
    # A program that is started by its path is never imported: no bytecode beside it.
    if compiled and target.endswith(".py") and mode == 0o644:
        code = compile_module(path.read_bytes(), f"/{target}")
        if code is not None:
            tree[cache_path(target)] = file_entry(cache_path(target), code)
    return tree


def build(job: Build) -> None:
    """Make one layer of `trees` ({source, target}), `texts` ({target: content}) and `links` ({target: to})."""
    tree: dict[str, Entry] = {}
    for item in job.attrs["trees"]:
        tree |= plan(Path(item["source"]), item["target"], job.attrs.get("compiled", True))
    for target, text in job.attrs["texts"].items():
        mode = 0o755 if text.startswith("#!") else 0o644
        tree[target] = file_entry(target, text.encode(), mode)
    for target, to in job.attrs["links"].items():
        tree[target] = link_entry(target, to)
    write_layer(tree, job.out, job.attrs["created_by"], job.zstd, job.attrs["level"])


if __name__ == "__main__":
    run(build)
