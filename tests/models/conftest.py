"""What the tests of models share: a Hub on loopback, and a volume with one model of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import COMMIT, PATH, REPO, Hub, tiny_safetensors
from fakes.serving import Stored
from support.fetching import Case


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def case(tmp_path: Path, hub: Hub) -> Case:
    """A volume, and the smoke image's one model."""
    tiny = tiny_safetensors()
    made = Case(tmp_path, {"HF_ENDPOINT": hub.url})
    source = {"kind": "huggingface", "repo": REPO, "path": PATH, "revision": COMMIT}
    made.add("tiny", source, "checkpoints/tiny.safetensors", size=len(tiny), sha256=Stored(tiny).sha256)
    return made
