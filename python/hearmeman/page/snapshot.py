"""Everything the page shows, read once for all its viewers."""

from __future__ import annotations

import functools
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hearmeman.page.comfyui import KEPT_JOBS, Facts, step_of
from hearmeman.redact import redact, redacted
from hearmeman.state_file import Reader
from hearmeman.status import collect, judge, logs
from hearmeman.status.usage import Meter

LOG_LINES = 80
LOG_BYTES = 32 * 1024
"""The most bytes read from the end of a log file."""
TAIL_LINES = 4
VOICE_SECONDS = 5.0
"""The shortest time between two requests to a voice engine for its state."""
TEXTS = 4096
"""How many redacted texts are remembered; one look has about a thousand."""
_as_json = functools.lru_cache(maxsize=2 * KEPT_JOBS)(asdict)


class Snapshot:
    """Looks at one pod again and again."""

    def __init__(self, run_dir: Path, facts: Facts, clock: Callable[[], float] = time.time) -> None:
        self.run_dir, self.facts, self.clock = run_dir, facts, clock
        self.meter = Meter()
        self._read = Reader()
        # Nearly all of it is the same as a second ago.
        self._clean = functools.lru_cache(maxsize=TEXTS)(redact)
        self._lines = logs.Follower(run_dir / "logs", most_bytes=LOG_BYTES)
        self._logs: list[dict[str, Any]] = []
        self._tails: dict[str, list[dict[str, Any]]] = {}
        self._voices: tuple[float, dict[str, dict[str, Any]]] = (float("-inf"), {})

    def look(self) -> dict[str, Any]:
        """Collect it all as JSON values, without any secret that this process knows; blocks, so call it in a thread."""
        now = self.clock()
        found = collect.status(self.run_dir, self._read)
        boot = found["boot"]
        volume = str(boot.get("volume", {}).get("path") or "")
        self._read_logs()
        found |= {
            "now": now,
            "usage": self.meter.look(
                [(volume, "volume"), ("/", "container disk")] if volume else [("/", "container disk")]
            ),
            "comfyui": self._comfyui(found),
            "voices": self._ask_voices(boot, found["processes"]),
            "logs": self._logs,
            "tails": self._tails,
        }
        how = judge.state(found, now)
        found |= {"state": asdict(how), "problems": [asdict(one) for one in judge.problems(found, now)]}
        cleaned: dict[str, Any] = redacted(found, self._clean)
        return cleaned

    def _comfyui(self, found: Mapping[str, Any]) -> dict[str, Any]:
        facts = self.facts
        keep: dict[str, Any] = next((p["keep"] for p in found["processes"] if p["name"] == "comfyui"), {})
        step = step_of(str(keep.get("drawn") or "")) if facts.running else None
        return {
            "answers": facts.answers,
            "running": facts.running,
            "waiting": facts.waiting,
            "step": asdict(step) if step else None,
            "jobs": [_as_json(job) for job in facts.jobs],
            "ended": facts.ended,
            "failed": facts.failed,
        }

    def _read_logs(self) -> None:
        """Read the lines that arrived since the last look."""
        new = [asdict(line) | {"text": line.text[:1000]} for line in self._lines.look()]
        self._logs = sorted([*self._logs, *new], key=lambda line: float(line["at"]))[-LOG_LINES:]
        for line in new:
            self._tails[line["name"]] = [*self._tails.get(line["name"], []), line][-TAIL_LINES:]

    def _ask_voices(self, boot: Mapping[str, Any], processes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        at, before = self._voices
        if time.monotonic() - at < VOICE_SECONDS:
            return before
        found = {}
        for name, url in (boot.get("voices") or {}).items():
            keep: dict[str, Any] = next((one["keep"] for one in processes if one["name"] == name), {})
            found[name] = _voice(str(url), keep)
        self._voices = time.monotonic(), found
        return found


def _voice(url: str, keep: Mapping[str, Any]) -> dict[str, Any]:
    """Ask an engine's /health, which does not load or wake anything."""
    if not keep.get("pid"):
        return {"word": "not running"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=2) as answer:
            told = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return {"word": "starting" if error.code == 503 else "runs"}
    except (OSError, ValueError):
        return {"word": "starting"}
    told = told if isinstance(told, dict) else {}
    word = "loading" if told.get("loading") else "ready, loaded" if told.get("loaded") else "ready"
    known = {key: told[key] for key in ("waiting", "in_flight", "loaded") if isinstance(told.get(key), int | bool)}
    return {"word": word, **known}
