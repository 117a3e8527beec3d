"""The folders that are saved: those of ComfyUI's base directory, and the voices, which lie beside it on the volume."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hearmeman.folder import Folder

VOICES = "voices"
"""The one folder that lies on the volume itself."""


class Tops:
    """Paths such as user/a.json and voices/me.wav, each below its own folder; no link is followed out of them."""

    def __init__(self, comfyui: Path, volume: Path) -> None:
        """Open both.

        Raises:
            OSError: one is not there, or is a link.
        """
        self._comfyui = Folder(comfyui)
        try:
            self._volume = Folder(volume)
        except OSError:
            self._comfyui.__exit__()
            raise

    def __enter__(self) -> Tops:
        return self

    def __exit__(self, *error: object) -> None:
        self._comfyui.__exit__(*error)
        self._volume.__exit__(*error)

    def _of(self, path: str) -> Folder:
        return self._volume if path.split("/")[0] == VOICES else self._comfyui

    def files(
        self, top: str, wanted: Callable[[str], bool], left_out: Callable[[str, str], None] = lambda path, why: None
    ) -> Iterator[tuple[str, os.stat_result]]:
        """As `Folder.files`."""
        return self._of(top).files(top, wanted, left_out)

    def open(self, path: str) -> int:
        """As `Folder.open`."""
        return self._of(path).open(path)

    def has(self, path: str) -> bool:
        """As `Folder.has`."""
        return self._of(path).has(path)

    def add(self, path: str, fill: Callable[[int], None], mtime_ns: int) -> bool:
        """As `Folder.add`."""
        return self._of(path).add(path, fill, mtime_ns)
