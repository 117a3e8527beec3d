"""Brings a built image to a registry, recording its digest, or into a local docker or podman."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hearmeman_build import skopeo, tags
from hearmeman_build.build import Image, build_image
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT, write_atomically
from hearmeman_build.inspect_image import layers

_PLACES = {"docker": "docker-daemon:", "podman": "containers-storage:"}


@dataclass(frozen=True)
class Pushed:
    """Where an image went."""

    reference: str
    """REGISTRY/NAME, without tag or digest."""
    digest: str
    sent: int
    """Bytes of layers that were sent."""
    skipped: int
    """Bytes of layers that the registry had."""


def push(
    tier: str,
    to: str,
    tag: str = "",
    plain_http: bool = False,
    say: Callable[[str], None] = lambda line: None,
    baked: Sequence[str] = (),
) -> Pushed:
    """Push `tier`'s image to `to` and record it in images.lock.json.

    Raises:
        BuildError: skopeo is missing or failed, or the registry holds another digest than was built.
    """
    image = build_image(tier, baked)
    flags = ["--dest-tls-verify=false"] if plain_http else []
    destination = f"docker://{to}:{tag or tags.tag(tier, baked)}"
    copied = skopeo.copy(_source(image), destination, _digests(image), flags, _teller(image, say))
    if copied.digest != image.digest:
        raise BuildError(f"{to} holds {copied.digest}, built was {image.digest}: the registry changed the manifest")
    record(ROOT / "images.lock.json", "-".join([tier, *baked]), to, image)
    sizes = {layer["digest"]: layer["size"] for layer in image.layers}
    sent = sum(size for digest, size in sizes.items() if digest in copied.sent)
    skipped = sum(size for digest, size in sizes.items() if digest in copied.skipped)
    say(f"sent {sent / 1e6:.2f} MB, {skipped / 1e6:.2f} MB were there already")
    return Pushed(to, copied.digest, sent, skipped)


def load(
    tier: str, into: str, name: str, say: Callable[[str], None] = lambda line: None, baked: Sequence[str] = ()
) -> str:
    """Load `tier`'s image into the local docker or podman as `name`; skopeo's destination.

    Raises:
        BuildError: skopeo is missing, or the engine is not there.
    """
    image = build_image(tier, baked)
    place = _PLACES.get(into, into)
    destination = f"{place}{name}:{tags.tag(tier, baked)}"
    skopeo.copy(_source(image), destination, _digests(image), [], _teller(image, say))
    return destination


def _source(image: Image) -> str:
    return f"oci:{image.layout}"


def _digests(image: Image) -> list[str]:
    return [layer["digest"] for layer in image.layers]


def _teller(image: Image, say: Callable[[str], None]) -> Callable[[str, str], None]:
    """Words for skopeo's states: a line when a layer begins to move and one when it is there."""
    known = {layer.digest: layer for layer in layers(image)}
    begun: set[str] = set()
    words = {"done": "sent", "skipped": "there already"}

    def tell(digest: str, state: str) -> None:
        layer = known[digest]
        if state in words or digest not in begun:
            say(f"{layer.size / 1e6:10.2f} MB  {layer.made_by}: {words.get(state, 'sending')}")
        begun.add(digest)

    return tell


def record(path: Path, tier: str, repository: str, image: Image) -> None:
    """Put what was pushed into the lock of images, one entry for each tier and repository."""
    entries = json.loads(path.read_text()) if path.exists() else []
    entries = [e for e in entries if (e["tier"], e["repository"]) != (tier, repository)]
    manifest = json.loads((image.layout / "blobs/sha256" / image.digest.partition(":")[2]).read_text())
    entries.append(
        {
            "tier": tier,
            "repository": repository,
            "digest": image.digest,
            "comfyui_rev": manifest["annotations"]["io.hearmeman.comfyui-commit"],
            "size": image.size,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }
    )
    write_atomically(path, (json.dumps(entries, indent=1) + "\n").encode())
