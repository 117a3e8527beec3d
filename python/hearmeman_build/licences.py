"""Licences as the packages themselves state them: read from a built image's copyright files and wheels' metadata."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path

from hearmeman_build.build import Image
from hearmeman_build.host import WORK, write_atomically
from hearmeman_build.store import inflated

_COPYRIGHT = re.compile(r"usr/share/doc/([^/]+)/copyright")
_METADATA = re.compile(r"opt/env/[^/]+/lib/[^/]+/site-packages/([^/]+)\.dist-info/METADATA")
_DOCUMENTS = re.compile(r"usr/share/doc/([^/]+)")
_COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])")


@dataclass
class Licences:
    """What an image's parts say of their licences."""

    debs: dict[str, list[str]] = field(default_factory=dict)
    """Package -> the names that its copyright file uses, such as GPL-2+."""
    wheels: dict[str, list[str]] = field(default_factory=dict)
    """NAME-VERSION as its dist-info folder is named, in lower case -> what its metadata says."""


def read(image: Image, below: Path = WORK / "documents") -> Licences:
    """Read them from the image's layers; `below` keeps what a layer holds, since inflating gigabytes takes a while.

    Packages whose documents are a link to another package's have that one's licences.
    """
    found = Licences()
    links: dict[str, str] = {}
    blobs = [image.layout / "blobs/sha256" / layer["digest"].partition(":")[2] for layer in image.layers]
    with ThreadPoolExecutor(max_workers=2) as pool:
        for members in pool.map(lambda blob: _known(blob, below), blobs):
            for path, text in members:
                if (match := _COPYRIGHT.fullmatch(path)) is not None:
                    found.debs[match[1]] = of_copyright(text)
                elif (match := _METADATA.fullmatch(path)) is not None:
                    found.wheels[match[1].lower()] = of_metadata(text)
                elif (match := _DOCUMENTS.fullmatch(path)) is not None:
                    links[match[1]] = text
    for package, target in links.items():
        found.debs.setdefault(package, found.debs.get(target, []))
    return found


def _known(blob: Path, below: Path) -> list[tuple[str, str]]:
    """A layer's documents, inflated once for each digest."""
    known = below / f"{blob.name}.json"
    if known.is_file():
        return [(path, text) for path, text in json.loads(known.read_text())]
    found = list(_documents(blob.resolve()))
    below.mkdir(parents=True, exist_ok=True)
    write_atomically(known, json.dumps(found).encode())
    return found


def _documents(blob: Path) -> Iterator[tuple[str, str]]:
    """The copyright files and metadata of one layer with their text; links of document folders with their target."""
    with inflated(blob) as output, tarfile.open(fileobj=output, mode="r|", bufsize=1 << 20) as tar:
        for member in tar:
            if member.issym() and _DOCUMENTS.fullmatch(member.name):
                yield member.name, member.linkname.rpartition("/")[2]
            elif member.isreg() and (_COPYRIGHT.fullmatch(member.name) or _METADATA.fullmatch(member.name)):
                content = tar.extractfile(member)
                if content is not None:
                    yield member.name, content.read().decode(errors="replace")


def of_copyright(text: str) -> list[str]:
    """The licences that a Debian copyright file names: its License fields, or the common licences that it points to."""
    named = set()
    if "Format:" in text[:2000]:
        for line in re.findall(r"^License:[ \t]*(\S[^\n]*)$", text, re.MULTILINE):
            named |= {
                part.strip() for part in re.split(r"\s+(?:or|and|and/or)\s+|,\s*(?:or|and)?\s*", line) if part.strip()
            }
    return sorted(named or set(_COMMON.findall(text)))


def of_metadata(text: str) -> list[str]:
    """The licence that a wheel's metadata states: its expression, else its short licence, else its classifiers."""
    headers = HeaderParser().parsestr(text)
    expression = headers.get("License-Expression")
    if expression:
        return [expression.strip()]
    stated = (headers.get("License") or "").strip()
    if stated and "\n" not in stated and len(stated) <= 80 and stated.upper() != "UNKNOWN":
        return [stated]
    classifiers = [c.rpartition(" :: ")[2] for c in headers.get_all("Classifier", []) if c.startswith("License :: ")]
    if classifiers:
        return sorted(set(classifiers))
    # The whole text stands in the field: its first line is its name.
    return [stated.splitlines()[0].strip()[:80]] if stated else []
