"""Sizes of pictures, the tiles of a large one, and where a point lies; numbers alone, so that it needs no torch."""

from __future__ import annotations

PATCH = 14
"""MVInverse's: width and height are multiples of it."""
TOKEN = 16
"""Pixels of a picture to one token of FLUX, each way."""
TILE = 32
"""Tokens to a tile, each way: Genfocus was trained on 512x512."""


def whole_patches(width: int, height: int, longest: int) -> tuple[int, int]:
    """Width and height for MVInverse: no side above `longest` pixels, both multiples of 14; as upstream's inference.py.

    Raises:
        ValueError: a side would be shorter than one patch.
    """
    longer = max(width, height)
    most = min(longer, longest)
    made = width * most // longer // PATCH * PATCH, height * most // longer // PATCH * PATCH
    if min(made) < PATCH:
        raise ValueError(
            f"A picture of {width}x{height} pixels is too narrow for MVInverse: at a longest side of {longest} its "
            f"shorter one is under {PATCH} pixels. Give a picture that is less of a strip, or a larger longest_side."
        )
    return made


def whole_tokens(width: int, height: int, longest: int) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """For Genfocus: the size to resize to, and the box (left, top, right, bottom) to cut out of that; as upstream does.

    With `longest` 0 the picture keeps its size, stretched by less than 16 pixels to multiples of 16. What was made so once
    stays as it is.

    Raises:
        ValueError: a side would be shorter than 16 pixels.
    """
    if longest and (width % TOKEN or height % TOKEN or not longest - TOKEN < max(width, height) <= longest):
        longer = max(width, height)
        resized = width * longest // longer, height * longest // longer
        cut = resized[0] // TOKEN * TOKEN, resized[1] // TOKEN * TOKEN
    else:
        resized = cut = -(-width // TOKEN) * TOKEN, -(-height // TOKEN) * TOKEN
    if min(cut) < TOKEN:
        raise ValueError(
            f"A picture of {width}x{height} pixels is too narrow for Genfocus: at a longest side of {longest} its "
            f"shorter one is under {TOKEN} pixels. Give a picture that is less of a strip, or a larger longest_side."
        )
    left, top = (resized[0] - cut[0]) // 2, (resized[1] - cut[1]) // 2
    return resized, (left, top, left + cut[0], top + cut[1])


def starts(tokens: int) -> list[int]:
    """Where tiles begin along a side of `tokens`: an eighth of a tile overlaps, and the last ends with the side."""
    found = list(range(0, max(1, tokens - TILE + 1), TILE - TILE // 8))
    if found[-1] + TILE < tokens:
        found.append(tokens - TILE)
    return found


def tiles(rows: int, columns: int) -> list[list[int]]:
    """Each tile's tokens, row by row; empty where the picture is denoised whole since a side is under 512 pixels."""
    if min(rows, columns) < TILE:
        return []
    return [
        [row * columns + column for row in range(top, top + TILE) for column in range(left, left + TILE)]
        for left in starts(columns)
        for top in starts(rows)
    ]


def at_fraction(fraction: float, length: int) -> int:
    """The index that lies at `fraction` (0 to 1) of a side of `length`."""
    return min(max(int(fraction * length), 0), length - 1)
