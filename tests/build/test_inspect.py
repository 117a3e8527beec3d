"""What `inspect` says of an image: its layers, their files, and how two images differ."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hearmeman_build import inspect_image
from hearmeman_build.build import Image, build_image
from hearmeman_build.errors import BuildError
from hearmeman_build.plugins.layer import file_entry, write_layer


def test_layers_with_their_sizes_and_makers(image: Image) -> None:
    found = inspect_image.layers(image)
    assert [layer.made_by for layer in found] == [
        "hearmeman userland core",
        "hearmeman environment runtime",
        "hearmeman comfyui-standin",
        "hearmeman hearmeman-smoke",
    ]
    assert sum(layer.size for layer in found) == image.size
    assert all(layer.unpacked > layer.size for layer in found)
    assert image.digest in inspect_image.shown(image, as_json=False)


def test_the_files_of_a_layer(image: Image) -> None:
    listed = list(inspect_image.contents(image, "comfyui-standin"))
    assert listed[0] == "hearmeman comfyui-standin:"
    assert [line for line in listed if line.startswith("00644 0:0") and line.endswith("/opt/comfyui/main.py")]
    with pytest.raises(BuildError, match="no layer of the image is described by 'nothing'"):
        list(inspect_image.contents(image, "nothing"))


def test_an_image_without_its_facts_is_built_again(image: Image) -> None:
    older = replace(image, layers=image.layers[:-1])
    with pytest.raises(BuildError, match="no layer of the image holds /opt/hearmeman/image.json: build it again"):
        inspect_image.facts(older)
    assert inspect_image.facts(build_image("smoke"))["tier"] == "smoke"


def _of_another_tier(image: Image, folder: Path) -> Image:
    """The image with another last layer, whose facts name another Qwen."""
    facts = inspect_image.facts(image)
    facts["env"] = {**facts["env"], "QWEN_EDIT_MODEL": "full"}
    entry = file_entry("opt/hearmeman/image.json", json.dumps(facts).encode())
    write_layer({entry.path: entry}, folder / "layer", "another", ["zstd"], 3)
    [layer] = json.loads((folder / "layer/layers.json").read_text())
    shutil.copytree(image.layout, folder / "layout", symlinks=True)
    blobs = folder / "layout/blobs/sha256"
    blobs.chmod(0o755)
    (blobs / layer["digest"].partition(":")[2]).symlink_to(folder / "layer/layer.tar.zst")
    return replace(image, layout=folder / "layout", layers=[*image.layers[:-1], layer])


def test_two_images_share_what_they_share_and_start_with_what_they_start_with(image: Image, tmp_path: Path) -> None:
    other = _of_another_tier(image, tmp_path)
    found = json.loads(inspect_image.difference(image, other, as_json=True))
    last = image.layers[-1]["size"]
    only = {"shared": image.size - last, "only_first": last, "only_second": other.layers[-1]["size"]}
    assert found["bytes"] == only
    assert found["settings"] == {"env": {"QWEN_EDIT_MODEL": ["", "full"]}, "recommended": {}}
    said = inspect_image.difference(image, other, as_json=False)
    assert "defaults to: QWEN_EDIT_MODEL=(unset), not full" in said
    assert "is shared" in said
