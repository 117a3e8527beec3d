"""Shows a built image: its layers and their sizes, and how it differs from another."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hearmeman_build.build import Image
from hearmeman_build.errors import BuildError
from hearmeman_build.store import inflated

_FACTS = "opt/hearmeman/image.json"


@dataclass(frozen=True)
class Layer:
    """One layer of an image."""

    digest: str
    size: int
    """Bytes, compressed."""
    unpacked: int
    """Bytes of its tar; 0 where the layer was not built here."""
    made_by: str
    """What it holds, e.g. `hearmeman environment comfyui`."""


def layers(image: Image) -> list[Layer]:
    """The image's layers, lowest first."""
    config = configuration(image)
    return [
        Layer(layer["digest"], layer["size"], _unpacked(image, layer["digest"]), history["created_by"])
        for layer, history in zip(image.layers, config["history"], strict=True)
    ]


def _unpacked(image: Image, digest: str) -> int:
    blob = image.layout / "blobs/sha256" / digest.partition(":")[2]
    beside = blob.resolve().with_name("layers.json")
    if not blob.is_symlink() or not beside.is_file():
        return 0
    [described] = json.loads(beside.read_text())
    return int(described.get("unpacked", 0))


def configuration(image: Image) -> dict[str, Any]:
    """The image's whole configuration document."""
    blobs = image.layout / "blobs/sha256"
    manifest = json.loads((blobs / image.digest.partition(":")[2]).read_text())
    document: dict[str, Any] = json.loads((blobs / manifest["config"]["digest"].partition(":")[2]).read_text())
    return document


def shown(image: Image, as_json: bool) -> str:
    """The image as a person reads it, or as JSON."""
    found = layers(image)
    if as_json:
        listed = [vars(layer) for layer in found]
        config = configuration(image)["config"]
        document = {"digest": image.digest, "size": image.size, "config": config, "layers": listed}
        return json.dumps(document, indent=1)
    unpacked = sum(layer.unpacked for layer in found)
    lines = [f"{image.digest}  {len(found)} layers, {image.size / 1e6:.1f} MB, {unpacked / 1e6:.1f} MB unpacked"]
    return "\n".join([*lines, *(_line(layer) for layer in found)])


def contents(image: Image, name: str) -> Iterator[str]:
    """Every member of the layers whose description holds `name`: mode, owner, bytes, path.

    Raises:
        BuildError: there is no such layer.
    """
    chosen = [layer for layer in layers(image) if name in layer.made_by]
    if not chosen:
        raise BuildError(f"no layer of the image is described by {name!r}: `inspect` without --contents lists them")
    for layer in chosen:
        yield f"{layer.made_by}:"
        blob = (image.layout / "blobs/sha256" / layer.digest.partition(":")[2]).resolve()
        with inflated(blob) as output, tarfile.open(fileobj=output, mode="r|") as tar:
            for member in tar:
                leads = f" -> {member.linkname}" if member.linkname else ""
                yield f"{member.mode:05o} {member.uid}:{member.gid} {member.size:12} /{member.name}{leads}"


def facts(image: Image) -> dict[str, Any]:
    """What the image says of itself to the pod: its image.json.

    Raises:
        BuildError: it has none.
    """
    # It lies in the layer of our own package, which comes last but for baked models.
    for layer in reversed(image.layers):
        blob = (image.layout / "blobs/sha256" / layer["digest"].partition(":")[2]).resolve()
        with inflated(blob) as output, tarfile.open(fileobj=output, mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.name == _FACTS else None
                if content is not None:
                    found: dict[str, Any] = json.load(content)
                    return found
    raise BuildError(f"no layer of the image holds /{_FACTS}: build it again")


def settings(one: Image, other: Image) -> dict[str, dict[str, list[str]]]:
    """What two images' pods start with differently: image.json's key -> variable -> both values, "" where unset."""
    ours, theirs = facts(one), facts(other)
    found: dict[str, dict[str, list[str]]] = {}
    for key in ("env", "recommended"):
        left, right = ours.get(key, {}), theirs.get(key, {})
        pairs = {name: [left.get(name, ""), right.get(name, "")] for name in sorted({*left, *right})}
        found[key] = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    return found


def difference(one: Image, other: Image, as_json: bool) -> str:
    """Which layers two images share, which are in one alone, and what their pods start with differently."""
    ours, theirs = layers(one), layers(other)
    common = {layer.digest for layer in ours} & {layer.digest for layer in theirs}
    parts = {
        "shared": [layer for layer in ours if layer.digest in common],
        "only_first": [layer for layer in ours if layer.digest not in common],
        "only_second": [layer for layer in theirs if layer.digest not in common],
    }
    if as_json:
        sizes = {name: sum(layer.size for layer in found) for name, found in parts.items()}
        listed = {name: [vars(layer) for layer in found] for name, found in parts.items()}
        return json.dumps({"bytes": sizes, "layers": listed, "settings": settings(one, other)}, indent=1)
    lines = []
    for name, found in parts.items():
        size = sum(layer.size for layer in found)
        lines.append(f"{name.replace('_', ' ')}: {len(found)} layers, {size / 1e6:.2f} MB")
        lines += [_line(layer) for layer in found]
    words = {"env": "defaults to", "recommended": "in the template"}
    for key, pairs in settings(one, other).items():
        lines += [
            f"{words[key]}: {name}={ours or '(unset)'}, not {theirs or '(unset)'}"
            for name, (ours, theirs) in pairs.items()
        ]
    share = sum(layer.size for layer in parts["shared"]) / max(one.size, 1)
    return "\n".join([*lines, f"{share:.2%} of the first image is shared"])


def _line(layer: Layer) -> str:
    return f"{layer.size / 1e6:10.2f} MB {layer.unpacked / 1e6:10.2f}  {layer.digest[7:19]}  {layer.made_by}"
