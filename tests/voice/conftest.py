"""The two APIs with hibari, one process each, shared by all tests of this folder: they go to one worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.voice import voice_process

PAGE = "https://chat.example.com"
"""A web page elsewhere that may use the Chatterbox API."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that use the servers on one worker."""
    for item in items:
        if isinstance(item, pytest.Function) and {"chatterbox", "xtts"} & set(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group("voice-api"))


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that both servers work in."""
    return tmp_path_factory.mktemp("voice")


@pytest.fixture(scope="session")
def chatterbox(served: Path) -> Iterator[str]:
    """Address of the Chatterbox API."""
    with voice_process("chatterbox", served, environ={"VOICE_ORIGINS": f"https://a.example, {PAGE}/"}) as url:
        yield url


@pytest.fixture(scope="session")
def xtts(served: Path) -> Iterator[str]:
    """Address of the XTTS API."""
    with voice_process("xtts", served) as url:
        yield url
