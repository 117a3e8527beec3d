"""Small files of each kind that ComfyUI loads; their beginnings are real."""

from __future__ import annotations

from pathlib import Path

from standin.png import encode

_FILM = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2mp41" + bytes(64)


def picture(folder: Path) -> Path:
    """A PNG."""
    path = folder / "picture.png"
    path.write_bytes(encode(8, 8, 0, {}))
    return path


def film(folder: Path) -> Path:
    """The beginning of an MP4."""
    path = folder / "film.mp4"
    path.write_bytes(_FILM)
    return path


def sound(folder: Path) -> Path:
    """The beginning of a FLAC."""
    path = folder / "sound.flac"
    path.write_bytes(b"fLaC" + bytes(64))
    return path
