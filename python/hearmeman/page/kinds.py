"""Which files a browser may show: pictures, films and sounds by their names, and nothing that could run."""

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
"""Ending -> content type. A page or an SVG drawing among the outputs could hold a script, and is only handed out as a file."""


def type_of(filename: str) -> str:
    """Give the content type that a file is served with; empty for what is only handed out as a file."""
    return TYPES.get(PurePosixPath(filename).suffix.lower(), "")


def kind_of(filename: str) -> str:
    """Give image, video, audio or other."""
    return type_of(filename).partition("/")[0] or "other"
