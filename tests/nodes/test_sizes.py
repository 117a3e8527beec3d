"""Sizes and tiles of our own nodes: what upstream's programs make of a picture, and every token in a tile."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.repository import ROOT


def _loaded() -> ModuleType:
    # The folder is a package of ComfyUI's; this part of it needs neither ComfyUI nor torch.
    spec = importlib.util.spec_from_file_location("node_sizes", ROOT / "comfyui_node/sizes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sizes = _loaded()
SIDE = st.integers(64, 5000)


@pytest.mark.parametrize(
    ("given_size", "longest", "made"),
    [
        ((1920, 1080), 1024, (1022, 574)),
        ((640, 480), 1024, (630, 476)),
        ((480, 640), 1024, (476, 630)),
        ((1400, 1400), 1400, (1400, 1400)),
    ],
)
def test_mvinverse_takes_whole_patches(given_size: tuple[int, int], longest: int, made: tuple[int, int]) -> None:
    assert sizes.whole_patches(*given_size, longest) == made


@pytest.mark.parametrize(
    ("given_size", "longest", "resized", "box"),
    [
        ((1000, 700), 0, (1008, 704), (0, 0, 1008, 704)),
        ((1024, 768), 0, (1024, 768), (0, 0, 1024, 768)),
        ((3000, 2000), 1024, (1024, 682), (0, 5, 1024, 677)),
        ((500, 1000), 1000, (500, 1000), (2, 4, 498, 996)),
    ],
)
def test_genfocus_takes_whole_tokens(
    given_size: tuple[int, int], longest: int, resized: tuple[int, int], box: tuple[int, ...]
) -> None:
    assert sizes.whole_tokens(*given_size, longest) == (resized, box)


@given(SIDE, SIDE, st.sampled_from([0, 512, 1000, 1024, 2000]))
def test_a_picture_that_genfocus_made_keeps_its_size(width: int, height: int, longest: int) -> None:
    try:
        _, (left, top, right, bottom) = sizes.whole_tokens(width, height, longest)
    except ValueError:
        return
    made = right - left, bottom - top
    assert made[0] % 16 == made[1] % 16 == 0
    assert sizes.whole_tokens(*made, longest) == (made, (0, 0, *made))


@pytest.mark.parametrize("function", [sizes.whole_patches, sizes.whole_tokens])
def test_a_strip_is_refused_with_its_fix(function: object) -> None:
    with pytest.raises(ValueError, match=r"5000x20 pixels is too narrow .* larger longest_side"):
        function(5000, 20, 1024)  # type: ignore[operator]


@given(st.integers(32, 150), st.integers(32, 150))
def test_tiles_cover_every_token_and_stay_inside(rows: int, columns: int) -> None:
    made = sizes.tiles(rows, columns)
    assert all(len(tile) == 32 * 32 == len(set(tile)) for tile in made)
    assert set().union(*made) == set(range(rows * columns))


def test_a_tile_is_a_square_of_the_picture_and_a_small_picture_is_one() -> None:
    assert sizes.tiles(31, 200) == []
    assert len(sizes.tiles(32, 32)) == 1
    assert [tile[0] for tile in sizes.tiles(64, 64)][:3] == [0, 28 * 64, 32 * 64]
    assert sizes.tiles(64, 64)[0][32] == 64


@pytest.mark.parametrize(("fraction", "index"), [(0.0, 0), (0.5, 50), (1.0, 99)])
def test_a_point_lies_within_the_picture(fraction: float, index: int) -> None:
    assert sizes.at_fraction(fraction, 100) == index
