"""The built image: reproducible, accepted by independent readers, and pushed with the digest it was built with."""

from __future__ import annotations

import json
import subprocess

import pytest

from hearmeman_build import inspect_image
from hearmeman_build.build import Image, build_output

QUICK = (
    "layer-comfyui-standin",
    "layer-hearmeman-smoke",
    "layer-environment-runtime",
    "layer-userland-core",
    "image-smoke",
)


@pytest.mark.parametrize("attribute", QUICK)
def test_a_second_build_gives_the_same_bytes(image: Image, attribute: str) -> None:
    build_output(attribute)
    build_output(attribute, "--rebuild")


def test_an_independent_reader_finds_every_digest_right(image: Image) -> None:
    assert build_output("checks.x86_64-linux.smoke").read_text().strip() == image.digest


def test_an_independent_validator_accepts_every_document(image: Image) -> None:
    """Its check of whole images is older than zstd layers, so each document is checked against its schema."""
    blobs = image.layout / "blobs/sha256"
    manifest = blobs / image.digest.partition(":")[2]
    config = blobs / json.loads(manifest.read_text())["config"]["digest"].partition(":")[2]
    for kind, path in (("imageIndex", image.layout / "index.json"), ("manifest", manifest), ("config", config)):
        subprocess.run(["oci-image-tool", "validate", "--type", kind, str(path)], check=True)


def test_skopeo_reads_it(image: Image) -> None:
    done = subprocess.run(
        ["skopeo", "inspect", f"oci:{image.layout}:smoke"], stdout=subprocess.PIPE, text=True, check=True
    )
    seen = json.loads(done.stdout)
    assert seen["Digest"] == image.digest
    assert seen["Layers"] == [layer["digest"] for layer in image.layers]


def test_the_configuration_says_what_the_container_toolkit_needs(image: Image) -> None:
    document = json.loads(inspect_image.shown(image, as_json=True))
    variables = dict(word.split("=", 1) for word in document["config"]["Env"])
    assert variables["NVIDIA_REQUIRE_CUDA"] == "cuda>=12.8"
    assert variables["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility,video"
    assert "CUDA_VERSION" not in variables
    assert document["config"]["Entrypoint"] == ["/usr/bin/tini", "--", "/opt/env/runtime/bin/hearmeman", "boot"]
    assert not [name for name in variables if "SECRET" in name or "TOKEN" in name or "ENDPOINT" in name]
