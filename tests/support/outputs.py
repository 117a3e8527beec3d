"""Outputs as ComfyUI writes them: files whose format says that they are whole."""

from __future__ import annotations

_START, _END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"


def png(content: bytes | str | int = b"") -> bytes:
    """A file with a PNG's beginning and end, and `content` between them."""
    return _START + (content if isinstance(content, bytes) else str(content).encode()) + _END
