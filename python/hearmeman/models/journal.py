"""Notes which bytes of a staged file have arrived, so that a killed fetch loses only what came since the last note."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from hearmeman.state_file import read_json, write_json

INTERVAL = 0.5
"""Seconds between two notes."""


class Journal:
    """The note beside one staged file. It counts only for the same content: same size, and same hash or tag."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.sha256 = ""
        self.etag = ""
        self._written = 0.0
        self._writing = threading.Lock()
        self._closed = False

    def name(self, size: int | None, sha256: str) -> None:
        """Say which content this is about; 0 and '' where it is not known."""
        self.size, self.sha256 = size or 0, sha256

    def read(self, staged_size: int) -> list[tuple[int, int]] | None:
        """Give the ranges still missing; None when nothing of this content is there."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found = read_json(self.path)
            same_hash = bool(self.sha256) and found["sha256"] == self.sha256
            same_tag = not self.sha256 and bool(found["etag"]) and not found["sha256"]
            if self.size and found["size"] == self.size == staged_size and (same_hash or same_tag):
                missing = [(int(start), int(end)) for start, end in found["missing"]]
                edges = [edge for span in missing for edge in span]
                if edges == sorted(edges) and all(0 <= edge <= self.size for edge in edges):
                    self.etag = str(found["etag"])
                    return missing
        return None

    def recall(self) -> int:
        """Give the size that the note states, for a source that states none before it sends."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found = read_json(self.path)
            if found["etag"] and not found["sha256"]:
                return int(found["size"])
        return 0

    def due(self) -> bool:
        """Tell whether it is time for the next note."""
        return time.monotonic() - self._written >= INTERVAL

    def write(self, missing: list[tuple[int, int]], done: int) -> None:
        """Note what is missing. Bytes must be written before they are left out of `missing`."""
        if not self._writing.acquire(blocking=False):
            return
        try:
            if self._closed:
                return
            self._written = time.monotonic()
            content = {"size": self.size, "sha256": self.sha256, "etag": self.etag, "done": done, "missing": missing}
            # Not durable: after a loss of power the hash of the whole tells what the note cannot.
            write_json(self.path, content, durable=False)
        finally:
            self._writing.release()

    def close(self) -> None:
        """Write no more: the file is whole, and its folder about to go."""
        with self._writing:
            self._closed = True

    def forget(self) -> None:
        """Remove the note: what is staged is wrong."""
        self.path.unlink(missing_ok=True)
