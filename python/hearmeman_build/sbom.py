"""Writes what an image is made of as CycloneDX: every .deb, Python package, source tree and baked file, with its hash."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hearmeman_build import bake, licences, locks, record, sources
from hearmeman_build.build import Image, build_image, tier_parts

MEDIA_TYPE = "application/vnd.cyclonedx+json"


def document(root: Path, tier: str, baked: Sequence[str] = (), image: Image | None = None) -> str:
    """The list for `tier`'s image with the variants `baked`, as JSON; the same text for the same image and commit.

    Raises:
        BuildError: no such tier, or its image cannot be built.
    """
    image = image or build_image(tier, baked)
    components = list(parts(root, tier, baked, image))
    made_from = record.revision(root)
    name = "-".join(["hearmeman", tier, *baked])
    version = (made_from.commit or image.digest) + ("-dirty" if made_from.dirty else "")
    purl = f"pkg:oci/{name}@{quote(image.digest, safe='')}"
    itself = {"type": "container", "name": name, "version": version, "bom-ref": purl, "purl": purl}
    itself["hashes"] = _sha256(image.digest.partition(":")[2])  # type: ignore[assignment]
    references = sorted(component["bom-ref"] for component in components)
    text = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        # Its number follows from its content, and it carries no time: two runs write one file.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, image.digest + chr(10).join(references))}",
        "metadata": {"component": itself},
        "components": components,
        "dependencies": [{"ref": purl, "dependsOn": references}],
    }
    return json.dumps(text, indent=1, sort_keys=True) + "\n"


def parts(root: Path, tier: str, baked: Sequence[str], image: Image) -> Iterable[dict[str, Any]]:
    """One component for each .deb, Python package, source tree and baked file."""
    chosen = tier_parts(tier)
    folders = {name: folder for folder, name in chosen["trees"].items()}
    stated = licences.read(image, sorted(folders.values()))
    userland = locks.userland(root)
    for name in locks.packages(userland, chosen["userland"]):
        entry = userland["packages"][name]
        purl = f"pkg:deb/debian/{quote(name)}@{quote(entry['version'], safe='')}?arch=amd64&distro=debian-12"
        yield _component("library", name, entry["version"], purl, entry["sha256"], stated.debs.get(name, []))
    locked = locks.environments(root, chosen["environments"])
    wheels = {entry["file"]: entry for environment in chosen["environments"] for entry in locked[environment]}
    for _, entry in sorted(wheels.items()):
        purl = f"pkg:pypi/{entry['name']}@{quote(entry['version'], safe='')}?file_name={quote(entry['file'])}"
        named = stated.wheels.get(_folder(entry), [])
        yield _component("library", entry["name"], entry["version"], purl, entry["sha256"], named)
    given = sources.folder()
    replaced = set(sources.differing(given)) if given is not None else set()
    for name, lock in sorted(sources.locked().items()):
        if name not in folders:
            continue
        named = stated.trees.get(folders[name], [])
        if name in replaced and given is not None:
            # Not the commit that is locked, but a folder of the operator's; its label in the image says the same.
            tree = sources.tree_hash(given / name)
            yield _component(
                "library", name, f"overridden-{tree[7:19]}", f"pkg:generic/{name}", _hexadecimal(tree), named
            )
        else:
            purl = f"pkg:github/{lock['owner'].lower()}/{lock['repo'].lower()}@{lock['rev']}"
            yield _component("library", name, lock["rev"], purl, _hexadecimal(lock["narHash"]), named)
    for file in bake.files(tier, baked):
        purl = f"pkg:generic/{quote(file['id'])}?file_name={quote(file['to'])}"
        version = str(file["source"].get("revision", "")) or file["sha256"][:12]
        kind = "machine-learning-model"
        yield _component(
            kind, file["to"], version, purl, file["sha256"], [file["licence"]] if "licence" in file else []
        )


def _folder(entry: dict[str, Any]) -> str:
    """The stem of a Python package's dist-info folder."""
    name = re.sub(r"[-_.]+", "_", entry["name"])
    return f"{name}-{entry['version']}".lower()


def _component(kind: str, name: str, version: str, purl: str, sha256: str, named: Sequence[str]) -> dict[str, Any]:
    component = {
        "type": kind,
        "name": name,
        "version": version,
        "bom-ref": purl,
        "purl": purl,
        "hashes": _sha256(sha256),
    }
    if named:
        component["licenses"] = [{"license": {"name": name}} for name in named]
    return component


def _sha256(value: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": value}]


def _hexadecimal(sri: str) -> str:
    return base64.b64decode(sri.removeprefix("sha256-")).hex()
