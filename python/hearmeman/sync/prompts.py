"""Asks ComfyUI which prompt made a file; what it does not know stays unknown."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

_TIMEOUT = 1.0
_SILENCE = 30.0
"""Seconds during which a ComfyUI that did not answer is not asked again."""
_HISTORY = 16
"""How many finished prompts are asked for."""


class Prompts:
    """The ids of prompts by the files that they wrote; safe from any thread."""

    def __init__(self, url: str) -> None:
        """Ask ComfyUI at `url`, without a slash at its end."""
        self.url = url
        self._lock = threading.Lock()
        self._silent_until = 0.0
        self._known: dict[str, str] = {}

    def of(self, relative: str) -> str:
        """Give the id of the prompt that wrote the output `relative`; empty if nobody knows."""
        with self._lock:
            if relative not in self._known and time.monotonic() >= self._silent_until:
                try:
                    self._known = dict(self._files())
                except (OSError, ValueError, AttributeError, TypeError):
                    self._silent_until = time.monotonic() + _SILENCE
            return self._known.get(relative, "")

    def _files(self) -> Iterator[tuple[str, str]]:
        for prompt_id, entry in self._get(f"/history?max_items={_HISTORY}").items():
            for output in entry.get("outputs", {}).values():
                for found in _named_files(output):
                    yield found, str(prompt_id)

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=_TIMEOUT) as reply:
            return json.load(reply)


def _named_files(output: dict[str, Any]) -> Iterator[str]:
    """Find every file that a node says it wrote, under whatever name: images, gifs, videos, audio, files."""
    for entries in output.values():
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("type") == "output" and isinstance(entry.get("filename"), str):
                folder = str(entry.get("subfolder") or "").strip("/")
                yield f"{folder}/{entry['filename']}" if folder else entry["filename"]
