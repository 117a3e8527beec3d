"""The tag of an image: the matrix of tiers and baked models, and a custom tag before all."""

from __future__ import annotations

import pytest

from hearmeman_build.tags import tag


@pytest.mark.parametrize(
    ("tier", "baked", "custom", "expected"),
    [
        ("consumer", [], "", "latest"),
        ("prosumer", [], "", "latest-prosumer"),
        ("datacenter", [], "", "latest-datacenter"),
        ("consumer", ["wan720p"], "", "wan720p"),
        ("consumer", ["wan480p"], "", "wan480p"),
        ("consumer", ["illustrious"], "", "illustrious"),
        ("prosumer", ["wan720p", "illustrious"], "", "wan720p-illustrious-prosumer"),
        ("consumer", ["wan720p"], "mine", "mine"),
        ("smoke", [], "", "smoke"),
    ],
)
def test_tags(tier: str, baked: list[str], custom: str, expected: str) -> None:
    assert tag(tier, baked, custom) == expected
