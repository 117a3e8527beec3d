"""Brings a built image to a registry, recording its digest, or into a local docker or podman."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from hearmeman_build import bake, host, record, sbom, skopeo, tags
from hearmeman_build.attach import attach
from hearmeman_build.build import Image, build_image
from hearmeman_build.errors import BuildError
from hearmeman_build.gzip_layout import gzip_copy
from hearmeman_build.host import ROOT
from hearmeman_build.inspect_image import facts, layers
from hearmeman_build.registries import check_layer

_PLACES = {"docker": "docker-daemon:", "podman": "containers-storage:"}
_NO_MANIFEST = re.compile(r"manifest invalid|media ?type", re.IGNORECASE)
"""What registries say of a manifest that they do not take."""
_WITHOUT_ZSTD = ("docker-daemon:", "docker-archive:")
"""Transports of docker's own format, which has no zstd."""


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
    compression: str = "zstd",
    move_tag: bool = False,
    list_parts: bool = True,
) -> Pushed:
    """Push `tier`'s image to `to` and record it in images.lock.json.

    A tag that the tier gives (`latest`) moves with each push; one that a person gave (`tag`) only with `move_tag`.
    `list_parts` attaches the list of its parts to the image, as an OCI referrer.

    Raises:
        BuildError: the record is damaged, the registry would refuse a layer, the tag is another image's, skopeo is missing
            or failed, or the registry holds another digest than was built.
    """
    if "@" in to or ":" in to.rpartition("/")[2]:
        raise BuildError(f"--to {to} has a tag or digest: give REGISTRY/NAME, and the tag by --tag")
    record.read(ROOT)
    bake.check(tier, baked, to)
    image = build_image(tier, baked)
    check_layers(image, to)
    about = facts(image)
    if compression == "gzip":
        image = gzip_copy(image, say)
    full = tag or tags.tag(tier, baked)
    destination = f"docker://{to}:{full}"
    before = skopeo.digest_at(destination, plain_http)
    if before and before != image.digest:
        if tag and not move_tag:
            raise BuildError(
                f"{to}:{tag} is another image, {before}: choose another --tag, or give --move-tag to replace it; "
                "nothing was pushed"
            )
        say(f"{full} moves from {before} to {image.digest}")
    # Else skopeo may reuse a layer that it once sent there as gzip, in place of ours.
    flags = ["--preserve-digests", *(["--dest-tls-verify=false"] if plain_http else [])]
    try:
        copied = skopeo.copy(_source(image), destination, _digests(image), flags, _teller(image, say))
    except BuildError as error:
        if compression == "zstd" and _NO_MANIFEST.search(error.said):
            raise BuildError(f"{error}\nthe registry may take no zstd: give --compression gzip", error.said) from error
        raise
    if copied.digest != image.digest:
        raise BuildError(f"{to} holds {copied.digest}, built was {image.digest}: the registry changed the manifest")
    record.write(ROOT, "-".join([tier, *baked]), to, full, image, compression, about)
    if list_parts:
        parts = sbom.document(host.ROOT, tier, baked, image)
        try:
            attach(to, image, sbom.MEDIA_TYPE, parts, plain_http, record.origin(ROOT))
        except BuildError as error:
            raise BuildError(
                f"the image is pushed and recorded, the list of its parts is not attached: {error}\n"
                "if the registry takes no such lists, give --no-sbom",
                error.said,
            ) from error
        say("attached the list of its parts (CycloneDX) as a referrer")
    sizes = {layer["digest"]: layer["size"] for layer in image.layers}
    sent = sum(size for digest, size in sizes.items() if digest in copied.sent)
    skipped = sum(size for digest, size in sizes.items() if digest in copied.skipped)
    say(f"sent {sent / 1e6:.2f} MB, {skipped / 1e6:.2f} MB were already there")
    return Pushed(to, copied.digest, sent, skipped)


def check_layers(image: Image, to: str) -> None:
    """Refuse what the registry would refuse after gigabytes.

    Raises:
        BuildError: names the layer and both sizes.
    """
    for layer in layers(image):
        check_layer(to, layer.made_by, layer.size)


def load(
    tier: str, into: str, name: str, say: Callable[[str], None] = lambda line: None, baked: Sequence[str] = ()
) -> str:
    """Load `tier`'s image into the local docker or podman as `name`; skopeo's destination.

    Docker is found where DOCKER_HOST says, and gets the layers as gzip: its format has no zstd.

    Raises:
        BuildError: skopeo is missing, or the engine is not there.
    """
    place = _PLACES.get(into, into)
    destination = f"{place}{name}:{tags.tag(tier, baked)}"
    flags = _docker_flags(os.environ.get("DOCKER_HOST", "")) if place == "docker-daemon:" else []
    if place == "docker-daemon:":
        _check_docker(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    image = build_image(tier, baked)
    if place.startswith(_WITHOUT_ZSTD):
        image = gzip_copy(image, say)
    skopeo.copy(_source(image), destination, _digests(image), flags, _teller(image, say))
    return destination


def _check_docker(host: str) -> None:
    """Refuse before minutes of work.

    Raises:
        BuildError: nothing answers at `host`.
    """
    address = urlsplit(host)
    try:
        if address.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(address.path)
        else:
            socket.create_connection((address.hostname or "", address.port or 2375), 10).close()
    except OSError as error:
        raise BuildError(
            f"docker does not answer at {host} ({error.strerror or error}): start it, or name its address in "
            "DOCKER_HOST"
        ) from error


def _docker_flags(host: str) -> list[str]:
    """Skopeo's flags for a DOCKER_HOST.

    Raises:
        BuildError: it is reached by SSH, which only docker's own client speaks.
    """
    if host.startswith("ssh://"):
        raise BuildError(
            f"DOCKER_HOST={host}: skopeo does not speak SSH; write a file instead with `--into "
            "docker-archive:image.tar:` "
            "and load it with `docker load --input image.tar`"
        )
    certificates = os.environ.get("DOCKER_CERT_PATH", "")
    secured = ["--dest-cert-dir", certificates] if certificates and os.environ.get("DOCKER_TLS_VERIFY") else []
    return [*(["--dest-daemon-host", host] if host else []), *secured]


def _source(image: Image) -> str:
    return f"oci:{image.layout}"


def _digests(image: Image) -> list[str]:
    return [layer["digest"] for layer in image.layers]


def _teller(image: Image, say: Callable[[str], None]) -> Callable[[str, str], None]:
    """Words for skopeo's states: a line when a layer begins to move and one when it is there."""
    known = {layer.digest: layer for layer in layers(image)}
    begun: set[str] = set()
    words = {"done": "sent", "skipped": "already there"}

    def tell(digest: str, state: str) -> None:
        layer = known[digest]
        if state in words or digest not in begun:
            say(f"{layer.size / 1e6:10.2f} MB  {layer.made_by}: {words.get(state, 'sending')}")
        begun.add(digest)

    return tell
