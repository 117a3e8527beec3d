"""What several tests share: the smoke images, built once; who runs beside whom; how long properties are tried."""

from __future__ import annotations

import os

import hypothesis
import pytest

from hearmeman_build.build import Image, build_image, prefetch_tier

# A busy machine is slow and not wrong. A property fails today if it failed yesterday: the long search is `make soak`.
hypothesis.settings.register_profile("calm", deadline=None, derandomize=True)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=5000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "calm"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share a server or a pod of their file on one worker, so that it is started once.

    All others go wherever a worker is free.
    """
    for item in items:
        if isinstance(item, pytest.Function) and "module" in _scopes(item):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def _scopes(item: pytest.Function) -> set[str]:
    fixtures = item._fixtureinfo.name2fixturedefs
    return {definition.scope for name in item.fixturenames for definition in fixtures.get(name, ())}


@pytest.fixture(scope="session")
def image() -> Image:
    """The smoke image, prefetched and built."""
    prefetch_tier("smoke")
    return build_image("smoke")


@pytest.fixture(scope="session")
def jupyter_image() -> Image:
    """The smoke image with JupyterLab; the two differ in one layer."""
    prefetch_tier("smoke-jupyter")
    return build_image("smoke-jupyter")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name bytes by their number: what they hold may change from run to run, and all workers must name a test alike."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) else None
