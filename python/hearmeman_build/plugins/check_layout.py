"""Re-reads a built image layout from nothing but its files: every digest, size, diff_id and tar member."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path
from typing import IO, Any

from hearmeman_build.errors import BuildError
from hearmeman_build.plugins.plugin import Build, run

_CURE = "run `nix-store --repair-path` with the path that it leads to, as the store's owner"


def _blob(layout: Path, descriptor: dict[str, Any]) -> Path:
    algorithm, _, value = descriptor["digest"].partition(":")
    path: Path = layout / "blobs" / algorithm / value
    if not path.is_file():
        raise BuildError(f"{path} is missing from the layout: {_CURE}")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != value or path.stat().st_size != descriptor["size"]:
        raise BuildError(f"{path} does not have the digest or size that names it: the store is damaged: {_CURE}")
    return path


def check_layout(layout: Path, zstd: list[str]) -> str:
    """Check the whole layout; its manifest digest.

    Raises:
        BuildError: says which blob is wrong and how.
    """
    if json.loads((layout / "oci-layout").read_text()) != {"imageLayoutVersion": "1.0.0"}:
        raise BuildError("oci-layout does not say version 1.0.0")
    index = json.loads((layout / "index.json").read_text())
    [entry] = index["manifests"]
    manifest = json.loads(_blob(layout, entry).read_text())
    config = json.loads(_blob(layout, manifest["config"]).read_text())
    diff_ids = config["rootfs"]["diff_ids"]
    if len(diff_ids) != len(manifest["layers"]) or len(config["history"]) != len(diff_ids):
        raise BuildError("the config lists another number of layers than the manifest")
    for layer, diff_id in zip(manifest["layers"], diff_ids, strict=True):
        blob = _blob(layout, layer)
        with (
            blob.open("rb") as source,
            subprocess.Popen([*zstd, "-d", "-q", "-c"], stdin=source, stdout=subprocess.PIPE, env={}) as child,
        ):
            if child.stdout is None:
                raise BuildError("zstd could not be started")
            actual = check_tar(child.stdout)
        if actual != diff_id:
            raise BuildError(f"layer {layer['digest']} unpacks to {actual}, the config says {diff_id}")
    return str(entry["digest"])


class _Hashing:
    def __init__(self, source: IO[bytes]) -> None:
        self.source = source
        self.hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self.source.read(size)
        self.hash.update(data)
        return data


def check_tar(source: IO[bytes]) -> str:
    """Read a layer's tar to its end; its sha256. Members must be relative, once each, and of one time."""
    hashing = _Hashing(source)
    seen = set()
    with tarfile.open(fileobj=hashing, mode="r|") as tar:  # type: ignore[call-overload]
        for info in tar:
            if info.name.startswith("/") or ".." in info.name.split("/"):
                raise BuildError(f"layer member {info.name!r} leaves the image")
            if info.name in seen:
                raise BuildError(f"layer member {info.name!r} comes twice")
            if info.mtime != 1 or info.uname or info.gname:
                raise BuildError(f"layer member {info.name!r} carries a time or a name")
            seen.add(info.name)
    while hashing.read(1 << 20):
        continue
    return f"sha256:{hashing.hash.hexdigest()}"


def build(job: Build) -> None:
    """Check `image` and write its digest to the output."""
    digest = check_layout(Path(job.attrs["image"]), job.zstd)
    job.out.write_text(digest + "\n")


if __name__ == "__main__":
    run(build)
