"""What `inspect` says of an image: its layers, their files, and how two images differ."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hearmeman_build import inspect_image
from hearmeman_build.build import Image
from hearmeman_build.errors import BuildError


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


def test_two_images_share_what_they_share(image: Image) -> None:
    other = replace(image, layers=[*image.layers[:-1], {**image.layers[-1], "digest": "sha256:" + "0" * 64}])
    found = json.loads(inspect_image.difference(image, other, as_json=True))
    last = image.layers[-1]["size"]
    assert found["bytes"] == {"shared": image.size - last, "only_first": last, "only_second": last}
    assert "is shared" in inspect_image.difference(image, other, as_json=False)
