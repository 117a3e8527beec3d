"""The list of an image's parts: whole, with licences and hashes, readable by its format's own library, and attached to a push."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from cyclonedx.model.bom import Bom

from hearmeman_build import attach, bake, licences, locks, push, sbom, sources
from hearmeman_build.build import Image, tier_parts
from hearmeman_build.host import ROOT
from support.registry import Registry


@pytest.fixture(scope="module")
def text(image: Image) -> str:
    """The smoke image's list."""
    return sbom.document(ROOT, "smoke", (), image)


def test_every_package_and_wheel_is_there_with_its_hash_and_nearly_all_with_a_licence(image: Image, text: str) -> None:
    found = {component["purl"]: component for component in json.loads(text)["components"]}
    userland, environments = locks.userland(ROOT), locks.environments(ROOT)
    debs = locks.packages(userland, tier_parts("smoke")["userland"])
    files = {entry["file"] for name in tier_parts("smoke")["environments"] for entry in environments[name]}
    assert len([purl for purl in found if purl.startswith("pkg:deb/debian/")]) == len(debs)
    assert len([purl for purl in found if purl.startswith("pkg:pypi/")]) == len(files)
    assert len(found) == len(debs) + len(files)
    six = next(component for purl, component in found.items() if purl.startswith("pkg:pypi/six@"))
    locked = next(entry for entry in environments["runtime"] if entry["name"] == "six")
    assert six["hashes"] == [{"alg": "SHA-256", "content": locked["sha256"]}]
    assert six["licenses"] == [{"license": {"name": "MIT"}}]
    without = [component["name"] for component in found.values() if "licenses" not in component]
    assert without == []


def test_it_names_the_image_by_its_digest_and_is_the_same_each_time(image: Image, text: str) -> None:
    assert text == sbom.document(ROOT, "smoke", (), image)
    itself = json.loads(text)["metadata"]["component"]
    assert itself["hashes"] == [{"alg": "SHA-256", "content": image.digest.partition(":")[2]}]
    assert itself["version"] not in ("", "0")


def test_the_formats_own_library_reads_it(text: str) -> None:
    bom = Bom.from_json(json.loads(text))  # type: ignore[attr-defined]
    assert len(bom.components) == len(json.loads(text)["components"])


def test_a_tree_of_the_operators_is_not_listed_as_the_locked_commit(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "comfyui").mkdir()
    (tmp_path / "comfyui/main.py").write_text("mine = True\n")
    monkeypatch.setenv("HEARMEMAN_SOURCES", str(tmp_path))
    monkeypatch.setattr(licences, "read", lambda *_: licences.Licences())
    found = {part["name"]: part for part in sbom.parts(ROOT, "consumer", (), image)}
    tree = sources.tree_hash(tmp_path / "comfyui")
    assert found["comfyui"]["version"] == f"overridden-{tree[7:19]}"
    rev = sources.locked()["comfyui-gguf"]["rev"]
    assert found["comfyui-gguf"]["purl"] == f"pkg:github/city96/comfyui-gguf@{rev}"


def test_baked_files_are_listed(image: Image) -> None:
    [file] = bake.files("smoke", ["tiny"])
    baked = [part for part in sbom.parts(ROOT, "smoke", ["tiny"], image) if part["type"] == "machine-learning-model"]
    assert [(part["name"], part["hashes"][0]["content"]) for part in baked] == [(file["to"], file["sha256"])]


@pytest.mark.parametrize(
    ("read", "text", "named"),
    [
        ("deb", "Format: https://x/1.0/\n\nFiles: *\nLicense: GPL-2+ or Artistic\n\nLicense: Expat\n x\n", ["Artistic", "Expat", "GPL-2+"]),
        ("deb", "On Debian systems see /usr/share/common-licenses/LGPL-2.1.\n", ["LGPL-2.1"]),
        ("deb", "Upstream-Name: x\n\nFiles: *\nLicense: X11\n", ["X11"]),
        ("deb", "Permission to use, copy, modify, distribute, and sell this\n software", ["HPND-sell-variant"]),
        ("deb", "the GNU Lesser General Public\nLicense, version 2.1 (or later)", ["LGPL-2.1"]),
        ("deb", "Do what you like.\n", []),
        ("wheel", "Name: x\nLicense-Expression: Apache-2.0 AND MIT\nLicense: other\n", ["Apache-2.0 AND MIT"]),
        ("wheel", "Name: x\nLicense: BSD\n", ["BSD"]),
        ("wheel", "Name: x\nLicense: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n", ["MIT License"]),
        ("wheel", "Name: x\nLicense: The Z License\n        \n        Permission is\n", ["The Z License"]),
        ("wheel", "Name: x\n", []),
    ],
)  # fmt: skip
def test_licences_are_read_as_they_are_stated(read: str, text: str, named: list[str]) -> None:
    assert (licences.of_copyright if read == "deb" else licences.of_metadata)(text) == named


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("        GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June\n occasionally and noncommercially", ["GPL-3.0"]),
        ("Redistribution and use in source and binary forms\n", ["BSD-2-Clause"]),
        ("Redistribution and use in source and binary forms, to endorse or\npromote", ["BSD-3-Clause"]),
        ("# Licensed under CC BY-NC-SA 4.0.\n", ["CC-BY-NC-SA-4.0"]),
        ("# Attribution-NonCommercial-ShareAlike\n# 4.0 International License.", ["CC-BY-NC-SA-4.0"]),
        ("x for non-commercial purposes\n", [licences.NON_COMMERCIAL]),
        ("#   may be used or intended for\n#   use non-commercially", [licences.NON_COMMERCIAL]),
    ],
)
def test_a_licence_is_known_by_its_own_words(text: str, named: list[str]) -> None:
    assert licences.of_text(text) == named


def test_a_tree_has_the_licences_of_its_folders_and_of_files_that_are_not_free(tmp_path: Path) -> None:
    layout = _layout(
        tmp_path,
        {
            "opt/comfyui-nodes/x/LICENSE": b"MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy of this software",
            "opt/comfyui-nodes/x/deep/license.txt": b"Apache License\n  Version 2.0, January 2004",
            "opt/comfyui-nodes/x/pose.py": b"# for non-commercial use only\n",
            "opt/comfyui-nodes/x/free.py": b"# Apache License, Version 2.0\n# GNU General Public License version 3\n",
            "opt/comfyui-nodes/xy/LICENSE": b"GNU GENERAL PUBLIC LICENSE Version 3",
            "opt/env/a/lib/python3.11/site-packages/Y-1.dist-info/METADATA": b"Name: Y\n",
            "opt/env/a/lib/python3.11/site-packages/Y-1.dist-info/licenses/LICENSE": b"PYTHON SOFTWARE FOUNDATION LICENSE",
        },
    )
    found = licences.read(layout, ["opt/comfyui-nodes/x"], tmp_path / "documents")
    assert found.trees == {"opt/comfyui-nodes/x": ["Apache-2.0", "MIT", licences.NON_COMMERCIAL]}
    assert found.wheels == {"y-1": ["PSF-2.0"]}
    assert licences.read(layout, ["opt/comfyui-nodes/x"], tmp_path / "documents") == found


def test_a_package_whose_documents_are_a_link_to_a_link_has_their_licence(tmp_path: Path) -> None:
    links = {"usr/share/doc/a": "b", "usr/share/doc/b": "c", "usr/share/doc/ring": "ring"}
    layout = _layout(tmp_path, {"usr/share/doc/c/copyright": b"See /usr/share/common-licenses/GPL-3."}, links)
    found = licences.read(layout, [], tmp_path / "documents").debs
    assert found == {"a": ["GPL-3"], "b": ["GPL-3"], "c": ["GPL-3"], "ring": []}


def _layout(folder: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Image:
    """An image with one layer, of which nothing but the blob is read."""
    blob = folder / "layout/blobs/sha256" / ("0" * 64)
    blob.parent.mkdir(parents=True)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    blob.write_bytes(subprocess.run(["zstd", "-cq"], input=content.getvalue(), capture_output=True, check=True).stdout)
    return Image(folder / "layout", "", [{"digest": f"sha256:{blob.name}"}], 0)


def test_a_push_attaches_it_beside_what_others_attached(
    image: Image, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "ROOT", tmp_path)
    for command in (["init", "-q"], ["remote", "add", "origin", "https://me:secret@github.com/me/hearmeman"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    commit = ["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "--allow-empty", "-m", "x"]
    subprocess.run(["git", "-C", str(tmp_path), *commit], check=True)
    with Registry() as registry:
        to = f"{registry.address}/x"
        first = attach.attach(to, image, "text/plain", "another's\n", plain_http=True)
        for _ in range(2):
            push.push("smoke", to, plain_http=True)
        raw = ["skopeo", "inspect", "--raw", "--tls-verify=false"]
        tag = image.digest.replace(":", "-")
        index = json.loads(subprocess.run([*raw, f"docker://{to}:{tag}"], stdout=subprocess.PIPE, check=True).stdout)
        digests = [entry["digest"] for entry in index["manifests"]]
        assert len(digests) == 2 and first in digests
        ours = next(digest for digest in digests if digest != first)
        manifest = json.loads(
            subprocess.run([*raw, f"docker://{to}@{ours}"], stdout=subprocess.PIPE, check=True).stdout
        )
        assert manifest["artifactType"] == "application/vnd.cyclonedx+json"
        assert manifest["subject"]["digest"] == image.digest
        assert re.fullmatch("[0-9a-f]{40}", manifest["annotations"]["org.opencontainers.image.revision"])
        assert manifest["annotations"]["org.opencontainers.image.source"] == "https://github.com/me/hearmeman"
        command = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{to}@{ours}", f"dir:{tmp_path}/out"]
        subprocess.run(command, check=True)
    blob = (tmp_path / "out" / manifest["layers"][0]["digest"].partition(":")[2]).read_text()
    assert json.loads(blob)["components"] == json.loads(text)["components"]
