"""Commands as the pod runs them: where these tests run as root, under the sync's own uid and capabilities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hearmeman.boot.users import SYNC, wrapped

COMFYUI_UID = 1000
"""Stands for whoever runs ComfyUI: a uid that is neither root's nor the sync's."""


def as_sync(argv: Sequence[str]) -> list[str]:
    """Give the command as the pod's sync user runs it; a plain user runs it as itself."""
    return list(wrapped(argv, SYNC)) if os.geteuid() == 0 else list(argv)


def give_to_comfyui(folder: Path) -> Path:
    """Make `folder` and all below it ComfyUI's own, closed to everybody else, where the tests may do that."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)
        if os.geteuid() == 0:
            os.chown(path, COMFYUI_UID, COMFYUI_UID, follow_symlinks=False)
    return folder
