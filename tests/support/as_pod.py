"""Commands as the pod runs them: where these tests run as root, under the pod's own users and their capabilities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hearmeman.users import COMFYUI, SYNC, User, wrapped


def as_user(argv: Sequence[str], user: User = SYNC) -> list[str]:
    """Give the command as the pod runs it; a plain user runs it as itself."""
    return list(wrapped(argv, user)) if os.geteuid() == 0 else list(argv)


def give_to_comfyui(folder: Path) -> Path:
    """Make `folder` and all below it ComfyUI's own, closed to everybody else, where the tests may do that."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)
        if os.geteuid() == 0:
            os.chown(path, COMFYUI.uid, COMFYUI.gid, follow_symlinks=False)
    return folder
