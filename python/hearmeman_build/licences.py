"""Licences as the parts of a built image state them: copyright files, wheels' metadata, licence files and headers of sources."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path

from hearmeman_build.build import Image
from hearmeman_build.host import WORK, write_atomically
from hearmeman_build.store import inflated

_COPYRIGHT = re.compile(r"usr/share/doc/([^/]+)/copyright")
_METADATA = re.compile(r"opt/env/[^/]+/lib/[^/]+/site-packages/([^/]+)\.dist-info/METADATA")
_FILE = re.compile(
    r"opt/env/[^/]+/lib/[^/]+/site-packages/([^/]+)\.dist-info/(?:.*/)?(?:LICEN[CS]E|COPYING)[^/]*", re.I
)
_OWN_FILE = re.compile(r"(?:.*/)?(?:LICEN[CS]E|COPYING)(?:\.(?:txt|md|rst))?", re.I)
_DOCUMENTS = re.compile(r"usr/share/doc/([^/]+)")
_COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])")
_HEADER = 8192
"""Bytes of a source file in which its own terms stand."""

NON_COMMERCIAL = "non-commercial use only"
_NOT_FREE = {
    "CC-BY-NC-SA-4.0": r"CC BY-NC-SA 4\.0|Attribution-NonCommercial-ShareAlike 4\.0",
    # The GPL's own text has "noncommercially".
    NON_COMMERCIAL: r"non-?commercial(?!ly|-ShareAlike)|for use non-commercially",
}
"""What a single file may say against the licence of its tree."""
_TEXTS = {
    **_NOT_FREE,
    "AGPL-3.0": r"GNU AFFERO GENERAL PUBLIC LICENSE Version 3",
    "LGPL-2.1": r"GNU LESSER GENERAL PUBLIC LICENSE,? Version 2\.1",
    "GPL-3.0": r"GNU GENERAL PUBLIC LICENSE Version 3",
    "GPL-2.0": r"GNU GENERAL PUBLIC LICENSE Version 2",
    "Apache-2.0": r"Apache License,? Version 2\.0",
    "MIT": r"to any person obtaining a copy of this software",
    "HPND-sell-variant": r"distribute,? and sell this software",
    "BSD-3-Clause": r"Redistribution and use in source and binary forms.*endorse or promote",
    "BSD-2-Clause": r"Redistribution and use in source and binary forms(?!.*endorse or promote)",
    "PSF-2.0": r"PYTHON SOFTWARE FOUNDATION LICENSE",
    "Info-ZIP": r"Info-ZIP license",
}
"""Licence -> words that only its text has, each run of blanks as one."""


@dataclass
class Licences:
    """What an image's parts say of their licences."""

    debs: dict[str, list[str]] = field(default_factory=dict)
    """Package -> the names that its copyright file uses, such as GPL-2+."""
    wheels: dict[str, list[str]] = field(default_factory=dict)
    """NAME-VERSION as its dist-info folder is named, in lower case -> what its metadata says, else its licence file."""
    trees: dict[str, list[str]] = field(default_factory=dict)
    """Folder of a source tree in the image -> what its licence files say, and the files in it that are not free."""


def read(image: Image, trees: Sequence[str] = (), below: Path = WORK / "documents") -> Licences:
    """Read them from the image's layers; `below` keeps what a layer holds, since inflating gigabytes takes a while.

    Packages whose documents are a link to another package's have that one's licences. `trees` are folders in the image.
    """
    found = Licences()
    links: dict[str, str] = {}
    files: dict[str, set[str]] = {}
    blobs = [image.layout / "blobs/sha256" / layer["digest"].partition(":")[2] for layer in image.layers]
    with ThreadPoolExecutor(max_workers=2) as pool:
        for members in pool.map(lambda blob: _known(blob, trees, below), blobs):
            for path, text in members:
                if tree := next((tree for tree in trees if path.startswith(f"{tree}/")), ""):
                    named = _matching(text, _NOT_FREE if path.endswith(".py") else _TEXTS)
                    found.trees[tree] = sorted({*found.trees.get(tree, []), *named})
                if (match := _COPYRIGHT.fullmatch(path)) is not None:
                    found.debs[match[1]] = of_copyright(text)
                elif (match := _METADATA.fullmatch(path)) is not None:
                    stated = of_metadata(text)
                    if stated:
                        found.wheels[match[1].lower()] = stated
                elif (match := _FILE.fullmatch(path)) is not None:
                    files.setdefault(match[1].lower(), set()).update(of_text(text))
                elif (match := _DOCUMENTS.fullmatch(path)) is not None:
                    links[match[1]] = text
    for package, said in files.items():
        found.wheels.setdefault(package, sorted(said))
    for package, target in links.items():
        # A link may lead to a link; a ring of them ends.
        for _ in links:
            target = links.get(target, target)
        found.debs.setdefault(package, found.debs.get(target, []))
    return found


def _known(blob: Path, trees: Sequence[str], below: Path) -> list[tuple[str, str]]:
    """A layer's documents, inflated once for each digest and for what is looked for."""
    asked = hashlib.sha256("\n".join([_FILE.pattern, *_TEXTS.values(), *trees]).encode()).hexdigest()[:16]
    known = below / f"{blob.name}-{asked}.json"
    if known.is_file():
        return [(path, text) for path, text in json.loads(known.read_text())]
    found = list(_documents(blob.resolve(), trees))
    below.mkdir(parents=True, exist_ok=True)
    write_atomically(known, json.dumps(found).encode())
    return found


def _documents(blob: Path, trees: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What states a licence in one layer, with its text; links of document folders with their target."""
    folders = tuple(f"{tree}/" for tree in trees)
    with inflated(blob) as output, tarfile.open(fileobj=output, mode="r|", bufsize=1 << 20) as tar:
        for member in tar:
            if member.issym() and _DOCUMENTS.fullmatch(member.name):
                yield member.name, member.linkname.rpartition("/")[2]
                continue
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                continue
            owned = member.name.startswith(folders)
            named = any(kind.fullmatch(member.name) for kind in (_COPYRIGHT, _METADATA, _FILE))
            if named or (owned and _OWN_FILE.fullmatch(member.name)):
                yield member.name, content.read().decode(errors="replace")
            elif owned and member.name.endswith(".py"):
                header = content.read(_HEADER).decode(errors="replace")
                if _matching(header, _NOT_FREE):
                    yield member.name, header


def of_copyright(text: str) -> list[str]:
    """The licences that a Debian copyright file names: its License fields, or the common licences that it points to."""
    named = set()
    if re.search(r"^(Format|Files):", text[:2000], re.MULTILINE):
        for line in re.findall(r"^License:[ \t]*(\S[^\n]*)$", text, re.MULTILINE):
            named |= {
                part.strip() for part in re.split(r"\s+(?:or|and|and/or)\s+|,\s*(?:or|and)?\s*", line) if part.strip()
            }
    return sorted(named or set(_COMMON.findall(text)) or of_text(text))


def of_text(text: str) -> list[str]:
    """The licences whose own words stand in a text."""
    return _matching(text, _TEXTS)


def _matching(text: str, known: Mapping[str, str]) -> list[str]:
    words = re.sub(r"[\s#*/]+", " ", text)
    return sorted(name for name, pattern in known.items() if re.search(pattern, words, re.IGNORECASE))


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
