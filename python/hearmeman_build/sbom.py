"""Writes what a tier's image is made of as CycloneDX: every .deb, Python package and source commit, with its hash."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearmeman_build import locks, sources
from hearmeman_build.build import tier_parts
from hearmeman_build.errors import BuildError

if TYPE_CHECKING:
    from cyclonedx.model.component import Component


def document(root: Path, tier: str) -> str:
    """The list for `tier` as JSON; the same text for the same locks.

    Raises:
        BuildError: no such tier, or the library that writes the format is not installed.
    """
    try:
        from cyclonedx.model.bom import Bom
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError as error:
        raise BuildError("cyclonedx-python-lib is not installed: run `./setup.sh test`") from error
    components = list(parts(root, tier))
    names = "\n".join(sorted(str(component.bom_ref) for component in components))
    # Its number follows from its content, and it carries no time: two builds write one file.
    bom = Bom(components=components, serial_number=uuid.uuid5(uuid.NAMESPACE_OID, names))
    bom.metadata.component = _component("container", "", f"hearmeman-{tier}", "0", "")
    bom.register_dependency(bom.metadata.component, components)
    text = json.loads(JsonV1Dot6(bom).output_as_string())
    text["metadata"].pop("timestamp", None)
    return json.dumps(text, indent=1, sort_keys=True) + "\n"


def parts(root: Path, tier: str) -> Iterable[Component]:
    """One component for each .deb, Python package and source of `tier`."""
    chosen = tier_parts(tier)
    userland = locks.userland(root)
    for name in sorted({name for group in chosen["userland"] for name in userland["groups"][group]}):
        entry = userland["packages"][name]
        qualifiers = {"arch": "amd64", "distro": "debian-12"}
        yield _component("deb", "debian", name, entry["version"], entry["sha256"], qualifiers)
    locked = locks.environments(root)
    wheels = {entry["file"]: entry for environment in chosen["environments"] for entry in locked[environment]}
    for _, entry in sorted(wheels.items()):
        yield _component("pypi", "", entry["name"], entry["version"], entry["sha256"], {"file_name": entry["file"]})
    for name, lock in sorted(sources.locked().items()):
        if name in chosen["inputs"]:
            yield _component("github", lock["owner"].lower(), lock["repo"].lower(), lock["rev"], "")


def _component(
    kind: str, namespace: str, name: str, version: str, sha256: str, qualifiers: Mapping[str, Any] | None = None
) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    purl = PackageURL(kind, namespace or None, name, version, dict(qualifiers or {}))
    container = kind == "container"
    return Component(
        name=name,
        version=version,
        type=ComponentType.CONTAINER if container else ComponentType.LIBRARY,
        purl=None if container else purl,
        bom_ref=str(purl),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else [],
    )
