"""What the tests of workflows share: a ComfyUI on loopback, and a pod elsewhere that leads to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes.comfyui import ComfyUI, comfyui
from fakes.remote_pod import RemotePod, remote_pod


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    with comfyui(tmp_path_factory.mktemp("comfyui"), write_seconds=0.1) as running:
        yield running


@pytest.fixture
def pod(server: ComfyUI) -> Iterator[RemotePod]:
    with remote_pod(server.url) as running:
        yield running
