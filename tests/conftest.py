"""What several tests share: the smoke images, built once."""

from __future__ import annotations

import hypothesis
import pytest

from hearmeman_build.build import Image, build_image, prefetch_tier

# A busy machine is slow and not wrong. The same cases every time; `make soak` looks for new ones, with --hypothesis-profile,
# and what it finds is kept as an @example.
hypothesis.settings.register_profile("calm", deadline=None, derandomize=True)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=2000, print_blob=True)
hypothesis.settings.load_profile("calm")


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
