"""Asks ComfyUI which prompt made a file; what it does not know stays unknown."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

_TIMEOUT = 1.0
_SILENCE = 30.0
"""Seconds during which a ComfyUI that did not answer is not asked again."""
_FRESH = 60.0
"""Seconds for which a file may be the work of the prompt that runs now."""
_HISTORY = 16
"""How many finished prompts are asked for."""


_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What an id looks like; another could not be sent in a header."""


class Prompts:
    """The ids of prompts by the files that they wrote; safe from any thread."""

    def __init__(self, url: str) -> None:
        """Ask ComfyUI at `url`, without a slash at its end."""
        self.url = url
        self._lock = threading.Lock()
        self._silent_until = 0.0
        self._known: dict[str, str] = {}

    def of(self, relative: str, mtime_ns: int) -> str:
        """Give the id of the prompt that wrote the output `relative`, last at `mtime_ns`; empty if nobody knows.

        A finished prompt names its files. Of the one that runs, the beginnings of its files' names are known.
        """
        with self._lock:
            if relative not in self._known and time.monotonic() >= self._silent_until:
                try:
                    self._known = dict(self._finished())
                    if relative not in self._known and time.time() - mtime_ns / 1e9 < _FRESH:
                        return self._running(relative)
                except (OSError, ValueError, AttributeError, TypeError, IndexError):
                    self._silent_until = time.monotonic() + _SILENCE
            return self._known.get(relative, "")

    def _finished(self) -> Iterator[tuple[str, str]]:
        for prompt_id, entry in self._get(f"/history?max_items={_HISTORY}").items():
            if not _PLAIN.fullmatch(str(prompt_id)):
                continue
            for output in entry.get("outputs", {}).values():
                for found in _named_files(output):
                    yield found, str(prompt_id)

    def _running(self, relative: str) -> str:
        running = self._get("/queue")["queue_running"]
        if len(running) != 1 or not _PLAIN.fullmatch(str(running[0][1])):
            return ""
        _, prompt_id, graph = running[0][:3]
        starts = [str(node.get("inputs", {}).get("filename_prefix") or "") for node in graph.values()]
        return str(prompt_id) if any(start and relative.startswith(start) for start in starts) else ""

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
