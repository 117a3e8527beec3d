"""Proves that an image is reproducible: two builds into two empty stores, compared by digest."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from hearmeman_build.build import build_image, prefetch_tier
from hearmeman_build.errors import BuildError
from hearmeman_build.host import WORK, in_nixpkgs_world


def reproduce(tier: str) -> None:
    """Build `tier`'s image in two fresh stores and compare every layer and the manifest.

    Raises:
        BuildError: names the first layer that differs.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    digests: list[list[str]] = []
    for turn in (1, 2):
        folder = Path(tempfile.mkdtemp(prefix="store-", dir=WORK))
        os.environ["HEARMEMAN_STORE"] = str(folder)
        begun = time.monotonic()
        try:
            if not in_nixpkgs_world():
                prefetch_tier(tier, say=lambda text: None)
            image = build_image(tier)
            digests.append([image.digest, *(layer["digest"] for layer in image.layers)])
            print(f"build {turn}: {image.digest} in {time.monotonic() - begun:.1f} s", flush=True)
        finally:
            del os.environ["HEARMEMAN_STORE"]
            _remove(folder)
    if digests[0] != digests[1]:
        first = next(i for i, (a, b) in enumerate(zip(*digests, strict=True)) if a != b and i > 0)
        raise BuildError(f"layer {first} differs between two builds: {digests[0][first]} and {digests[1][first]}")
    print(f"identical: manifest and {len(digests[0]) - 1} layers")


def _remove(folder: Path) -> None:
    for parent, _, _ in os.walk(folder):
        Path(parent).chmod(0o755)
    shutil.rmtree(folder)
