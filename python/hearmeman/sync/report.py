"""The state file: backlog, last success, last error, for `hearmeman status` and for people."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

INTERVAL = 0.5
"""Seconds between two writes of the file."""


class Report:
    """Facts about the running sync, written to a JSON file when they have changed."""

    def __init__(self, path: Path, **facts: object) -> None:
        """Start with `facts`; nothing is written yet."""
        self.path = path
        self.facts: dict[str, object] = {"pid": os.getpid(), "started": time.time(), **facts}
        self.written: dict[str, object] = {}
        self.written_at = 0.0

    def update(self, now: float, force: bool = False, **facts: object) -> None:
        """Change facts at clock `now`; a full disk does not stop the sync."""
        self.facts.update(facts)
        if self.facts == self.written or (now - self.written_at < INTERVAL and not force):
            return
        beside = self.path.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            beside.write_text(json.dumps({**self.facts, "updated": time.time()}, indent=2), encoding="utf-8")
            beside.replace(self.path)
        self.written, self.written_at = dict(self.facts), now
