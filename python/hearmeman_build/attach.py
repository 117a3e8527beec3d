"""Attaches a document to a pushed image as an OCI referrer, where registries and scanners look for it.

The artifact's manifest names the image as its subject, for registries with a referrers API; an index of all artifacts under
the tag sha256-<digest> serves the others (OCI distribution specification 1.1, referrers tag schema).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearmeman_build import skopeo
from hearmeman_build.build import Image

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_EMPTY = b"{}"


def attach(
    repository: str,
    image: Image,
    media_type: str,
    text: str,
    plain_http: bool = False,
    annotations: Mapping[str, str] | None = None,
) -> str:
    """Attach `text` to `image` in `repository`, beside what others attached; the artifact's digest.

    One of the same kind that was attached before is replaced.

    Raises:
        BuildError: the registry refuses or does not answer.
    """
    tag = f"docker://{repository}:{image.digest.replace(':', '-')}"
    with tempfile.TemporaryDirectory() as folder:
        layout = Path(folder, "layout")
        known: list[dict[str, Any]] = []
        if skopeo.digest_at(tag, plain_http):
            insecure = ["--src-tls-verify=false"] if plain_http else []
            skopeo.copy(tag, f"oci:{layout}", [], ["--all", *insecure])
            known = _entries(layout)
        artifact = _artifact(layout, image, media_type, text.encode(), annotations or {})
        kept = [entry for entry in known if entry["artifactType"] != media_type]
        index = _write(layout, _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [*kept, artifact]}))
        top = {"schemaVersion": 2, "manifests": [{"mediaType": _INDEX, **index}]}
        (layout / "index.json").write_bytes(_json(top))
        (layout / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
        insecure = ["--dest-tls-verify=false"] if plain_http else []
        skopeo.copy(f"oci:{layout}", tag, [], ["--all", *insecure])
    return str(artifact["digest"])


def _artifact(
    layout: Path, image: Image, media_type: str, data: bytes, annotations: Mapping[str, str]
) -> dict[str, Any]:
    """Write the artifact's blobs and manifest; its entry in an index."""
    config = {"mediaType": "application/vnd.oci.empty.v1+json", **_write(layout, _EMPTY)}
    manifest_bytes = (image.layout / "blobs/sha256" / image.digest.partition(":")[2]).read_bytes()
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": media_type,
        "config": config,
        "layers": [{"mediaType": media_type, **_write(layout, data)}],
        "subject": {"mediaType": _MANIFEST, "digest": image.digest, "size": len(manifest_bytes)},
        **({"annotations": dict(annotations)} if annotations else {}),
    }
    return {"mediaType": _MANIFEST, "artifactType": media_type, **_write(layout, _json(manifest))}


def _entries(layout: Path) -> list[dict[str, Any]]:
    """The artifacts of the index that a layout holds. Older skopeos drop their kind from the index: it is read again."""
    [top] = json.loads((layout / "index.json").read_text())["manifests"]
    entries = _read(layout, top["digest"])["manifests"]
    return [{**entry, "artifactType": _read(layout, entry["digest"]).get("artifactType", "")} for entry in entries]


def _read(layout: Path, digest: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((layout / "blobs/sha256" / digest.partition(":")[2]).read_text())
    return document


def _write(layout: Path, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
