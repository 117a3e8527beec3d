"""A copy of a built image whose layers are gzip, for docker and registries that take no zstd; made once a layer."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from hearmeman_build.build import Image, read_image
from hearmeman_build.errors import BuildError
from hearmeman_build.host import WORK, write_atomically
from hearmeman_build.inspect_image import configuration, layers
from hearmeman_build.store import inflated, repair

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_PIECE = 1 << 20


def gzip_copy(image: Image, say: Callable[[str], None], below: Path = WORK / "gzip") -> Image:
    """The image with gzip layers: the same configuration, so the same image ID, under a manifest of its own.

    Layers that were made before are not made again; two at a time, since inflating and deflating take a core each.

    Raises:
        BuildError: a layer's bytes are not those that the configuration names.
    """
    (below / "blobs").mkdir(parents=True, exist_ok=True)
    diff_ids: list[str] = configuration(image)["rootfs"]["diff_ids"]
    named = layers(image)

    def one(at: int) -> dict[str, Any]:
        known = below / f"{image.layers[at]['digest'].partition(':')[2]}.json"
        if known.is_file():
            found: dict[str, Any] = json.loads(known.read_text())
            if (below / "blobs" / found["digest"].partition(":")[2]).is_file():
                return found
        source = image.layout / "blobs/sha256" / image.layers[at]["digest"].partition(":")[2]
        descriptor = _convert(source.resolve(), below / "blobs", diff_ids[at])
        write_atomically(known, json.dumps(descriptor).encode())
        say(f"{descriptor['size'] / 1e6:10.2f} MB  {named[at].made_by}: as gzip")
        return descriptor

    with ThreadPoolExecutor(max_workers=max(1, min(4, (os.cpu_count() or 2) // 2 + 1))) as pool:
        descriptors = list(pool.map(one, range(len(image.layers))))
    return _layout(image, descriptors, below)


def _convert(source: Path, blobs: Path, diff_id: str) -> dict[str, Any]:
    """Write one layer as gzip; its descriptor."""
    beside = blobs / f".{source.parent.name}.{os.getpid()}"
    inner, outer, size = hashlib.sha256(), hashlib.sha256(), 0
    # wbits 31: a gzip header without name and time, so the same bytes each time.
    deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
    try:
        with inflated(source) as output, beside.open("wb") as file:
            while piece := output.read(_PIECE):
                inner.update(piece)
                size += _write(file, outer, deflate.compress(piece))
            size += _write(file, outer, deflate.flush())
            os.fsync(file.fileno())
        if f"sha256:{inner.hexdigest()}" != diff_id:
            raise BuildError(f"{source} does not hold the layer {diff_id}: {repair(source)}")
        beside.replace(blobs / outer.hexdigest())
    finally:
        beside.unlink(missing_ok=True)
    return {"mediaType": _LAYER, "digest": f"sha256:{outer.hexdigest()}", "size": size}


def _write(file: IO[bytes], hashing: Any, data: bytes) -> int:
    file.write(data)
    hashing.update(data)
    return len(data)


def _layout(image: Image, descriptors: list[dict[str, Any]], below: Path) -> Image:
    blobs = image.layout / "blobs/sha256"
    manifest = json.loads((blobs / image.digest.partition(":")[2]).read_text())
    manifest["layers"] = descriptors
    config = manifest["config"]["digest"].partition(":")[2]
    data = _json(manifest)
    digest = hashlib.sha256(data).hexdigest()
    out = below / image.digest.partition(":")[2][:16]
    (out / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    for descriptor in descriptors:
        name = descriptor["digest"].partition(":")[2]
        link = out / "blobs/sha256" / name
        if not link.is_symlink():
            link.symlink_to(f"../../../blobs/{name}")
    write_atomically(out / "blobs/sha256" / config, (blobs / config).read_bytes())
    write_atomically(out / "blobs/sha256" / digest, data)
    index = json.loads((image.layout / "index.json").read_text())
    index["manifests"][0] |= {"digest": f"sha256:{digest}", "size": len(data)}
    write_atomically(out / "oci-layout", (image.layout / "oci-layout").read_bytes())
    write_atomically(out / "index.json", _json(index))
    return read_image(out)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
