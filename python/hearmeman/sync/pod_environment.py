"""Lets commands typed in the pod's own shell use what boot gave the sync, where that may be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

FILE = Path("/run/hearmeman/env/sync.json")
"""Boot's file: JSON, the sync's whole environment; only root's shell and the sync itself may read it."""
_WANTED = (
    "R2_",
    "SYNC_",
    "COMFYUI_OUTPUT_DIR",
    "COMFYUI_PORT",
    "COMFYUI_URL",
    "VOLUME_DIR",
    "STATE_DIR",
    "RUNPOD_POD_ID",
)


def with_pod_keys(environ: Mapping[str, str], file: Path = FILE) -> dict[str, str]:
    """Add to `environ` what boot gave the sync, unless it has both keys already or `file` cannot be read."""
    if environ.get("R2_ACCESS_KEY_ID") and environ.get("R2_SECRET_ACCESS_KEY"):
        return dict(environ)
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return dict(environ)
    return {**{name: value for name, value in given.items() if name.startswith(_WANTED)}, **environ}
