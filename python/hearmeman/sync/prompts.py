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

_TIMEOUT = 5.0
"""Seconds that ComfyUI may take to answer: a node that computes in Python holds its answers up."""
_SILENCE = 30.0
"""Seconds during which a ComfyUI that did not answer is not asked again."""
_FRESH = 60.0
"""Seconds after its last change during which a file is asked about: older ones come from a prompt that is long over."""
_PAUSE = 0.5
"""Seconds between two questions: an answer is some megabytes of JSON, and serves every file written before it."""
_HISTORY = 16
"""How many finished prompts are asked for."""
_KNOWN = 10_000
"""Files whose prompts are remembered."""
_GRAPHS = 100
"""Prompts whose graphs are remembered."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What an id looks like; another could not be sent in a header."""


class Prompts:
    """The ids of prompts by the files that they wrote; safe from any thread."""

    def __init__(self, url: str) -> None:
        """Ask ComfyUI at `url`, without a slash at its end."""
        self.url = url
        self._asking = threading.Lock()
        self._silent_until = 0.0
        self._asked = 0.0
        self._known: dict[str, str] = {}
        self._running: tuple[str, tuple[str, ...]] = "", ()
        self._graphs: dict[str, dict[str, Any]] = {}

    def graph_of(self, prompt_id: str) -> dict[str, Any] | None:
        """Give the graph of a prompt whose id was given a while ago; None where it is not known any more."""
        return self._graphs.get(prompt_id)

    def of(self, relative: str, mtime_ns: int) -> str:
        """Give the id of the prompt that wrote the output `relative`, last at `mtime_ns`; empty if nobody knows.

        A finished prompt names its files. Of the one that runs, the beginnings of its files' names are known.
        """
        now, known = time.time(), self._known.get(relative, "")
        if known or now - mtime_ns / 1e9 >= _FRESH:
            return known
        written = min(mtime_ns / 1e9, now)
        with self._asking:  # Who comes meanwhile waits for this answer and shares it.
            if self._asked < written and time.monotonic() >= self._silent_until:
                time.sleep(max(0.0, min(self._asked + _PAUSE - time.time(), _PAUSE)))
                self._ask()
        prompt_id, starts = self._running
        return self._known.get(relative) or (prompt_id if relative.startswith(starts) else "")

    def _ask(self) -> None:
        self._asked = time.time()
        try:
            found = {**self._known, **dict(self._finished())}
            self._known = dict(list(found.items())[-_KNOWN:])
            self._running = self._now_running()
        except (OSError, ValueError, AttributeError, TypeError, IndexError, KeyError):
            self._silent_until = time.monotonic() + _SILENCE
            self._running = "", ()

    def _finished(self) -> Iterator[tuple[str, str]]:
        for prompt_id, entry in self._get(f"/history?max_items={_HISTORY}").items():
            if not _PLAIN.fullmatch(str(prompt_id)):
                continue
            self._note(str(prompt_id), entry.get("prompt"))
            for output in entry.get("outputs", {}).values():
                for found in _named_files(output):
                    yield found, str(prompt_id)

    def _now_running(self) -> tuple[str, tuple[str, ...]]:
        running = self._get("/queue")["queue_running"]
        if len(running) != 1 or not _PLAIN.fullmatch(str(running[0][1])):
            return "", ()
        _, prompt_id, graph = running[0][:3]
        self._note(str(prompt_id), running[0])
        starts = (str(node.get("inputs", {}).get("filename_prefix") or "") for node in graph.values())
        return str(prompt_id), tuple(start for start in starts if start)

    def _note(self, prompt_id: str, row: Any) -> None:
        """Keep the graph in a row of the queue or the history."""
        if isinstance(row, list) and len(row) > 2 and isinstance(row[2], dict):
            graphs = {**self._graphs, prompt_id: row[2]}
            self._graphs = dict(list(graphs.items())[-_GRAPHS:])

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
