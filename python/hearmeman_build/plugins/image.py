"""Assembles layers and a configuration into an OCI image layout whose digest is known at build time."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from hearmeman_build.errors import BuildError
from hearmeman_build.plugins.plugin import Build, run

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CREATED = "1970-01-01T00:00:01Z"
MAX_LAYERS = 40


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


_CURE = "run `nix-store --repair-path` with that path as the store's owner; a build takes what is there as it is"


def described(layers: list[Path]) -> list[dict[str, Any]]:
    """Each layer's entry of its `layers.json`, in order.

    Raises:
        BuildError: a layer's path or its blob is missing, or there are more than 40.
    """
    found: list[dict[str, Any]] = []
    for layer in layers:
        listing = layer / "layers.json"
        if not listing.is_file():
            raise BuildError(f"layer {layer} is missing from the store: {_CURE}")
        found += json.loads(listing.read_text())
    for item in found:
        blob = Path(item["layer-path"])
        if not blob.is_file() or blob.stat().st_size != item["size"]:
            raise BuildError(f"blob {blob} is missing or has another size than layers.json says: {_CURE}")
    if len(found) > MAX_LAYERS:
        raise BuildError(f"{len(found)} layers, at most {MAX_LAYERS}: clients pull them slowly beyond that")
    return found


def documents(layers: list[dict[str, Any]], config: dict[str, Any], annotations: dict[str, str]) -> tuple[bytes, bytes]:
    """The config and the manifest as bytes."""
    image = {
        "architecture": "amd64",
        "os": "linux",
        "created": _CREATED,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer["diff_ids"] for layer in layers]},
        "history": [{"created": _CREATED, **layer["History"]} for layer in layers],
    }
    config_bytes = _json(image)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": _digest(config_bytes), "size": len(config_bytes)},
        "layers": [
            {"mediaType": layer["mediatype"], "digest": layer["digest"], "size": layer["size"]} for layer in layers
        ],
        "annotations": annotations,
    }
    return config_bytes, _json(manifest)


def write_layout(out: Path, layers: list[dict[str, Any]], config: bytes, manifest: bytes, tag: str) -> None:
    """Write the layout; layer blobs are links to their neighbours in the store, wherever that store lies on disk."""
    blobs = out / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for layer in layers:
        link = blobs / layer["digest"].removeprefix("sha256:")
        if not link.is_symlink():
            # Relative: a plain user's store is not at /nix, and an absolute link would lead out of it.
            link.symlink_to(os.path.relpath(layer["layer-path"], blobs))
    for data in (config, manifest):
        (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
    index = {
        "schemaVersion": 2,
        "mediaType": _INDEX,
        "manifests": [
            {
                "mediaType": _MANIFEST,
                "digest": _digest(manifest),
                "size": len(manifest),
                "platform": {"architecture": "amd64", "os": "linux"},
                "annotations": {"org.opencontainers.image.ref.name": tag},
            }
        ],
    }
    (out / "index.json").write_bytes(_json(index))
    (out / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


def build(job: Build) -> None:
    """Make the layout from `layers`, `config`, `annotations` and `tag`."""
    layers = described([Path(path) for path in job.attrs["layers"]])
    config, manifest = documents(layers, job.attrs["config"], job.attrs["annotations"])
    job.out.mkdir(parents=True)
    write_layout(job.out, layers, config, manifest, job.attrs["tag"])


if __name__ == "__main__":
    run(build)
