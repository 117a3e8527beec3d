"""Which files a browser may show: pictures, films and sounds, by name, and nothing that could run code."""

from __future__ import annotations

from pathlib import PurePosixPath

TYPES = {
    **{f".{name}": f"image/{name}" for name in ("png", "webp", "gif", "avif")},
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mov": "video/mp4",
    ".mkv": "video/x-matroska",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
    ".aac": "audio/aac",
}
"""Suffix -> content type. An HTML page or SVG among the outputs could contain a script, so it is only offered for
download.
"""


def type_of(filename: str) -> str:
    """The content type that a file is served with; empty if it is only offered for download."""
    return TYPES.get(PurePosixPath(filename).suffix.lower(), "")


def kind_of(filename: str) -> str:
    """Return image, video, audio or other."""
    return type_of(filename).partition("/")[0] or "other"
