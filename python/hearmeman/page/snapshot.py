"""Everything that the page shows, read once for however many look at it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hearmeman.page.comfyui import Facts, step_of
from hearmeman.redact import redacted
from hearmeman.status import collect, judge, logs
from hearmeman.status.usage import Meter

LOG_LINES = 80
TAIL_LINES = 4
VOICE_SECONDS = 5.0
"""How seldom a voice engine is asked how it is."""


class Snapshot:
    """Looks at one pod again and again."""

    def __init__(self, run_dir: Path, facts: Facts, clock: Callable[[], float] = time.time) -> None:
        self.run_dir, self.facts, self.clock = run_dir, facts, clock
        self.meter = Meter()
        self._logs: dict[str, tuple[tuple[int, int, int], list[dict[str, Any]]]] = {}
        self._voices: tuple[float, dict[str, dict[str, Any]]] = (float("-inf"), {})

    def look(self) -> dict[str, Any]:
        """Collect it all as JSON values, without a secret that this process knows; blocks, so call it in a thread."""
        now = self.clock()
        found = collect.status(self.run_dir)
        boot = found["boot"]
        volume = str(boot.get("volume", {}).get("path") or "")
        tails = self._tails()
        merged = sorted((line for lines in tails.values() for line in lines), key=lambda line: line["at"])
        found |= {
            "now": now,
            "usage": self.meter.look(
                [(volume, "volume"), ("/", "container disk")] if volume else [("/", "container disk")]
            ),
            "comfyui": self._comfyui(found),
            "voices": self._ask_voices(boot, found["processes"]),
            "logs": merged[-LOG_LINES:],
            "tails": {name: lines[-TAIL_LINES:] for name, lines in tails.items()},
        }
        how = judge.state(found, now)
        found |= {"state": asdict(how), "problems": [asdict(one) for one in judge.problems(found, now)]}
        cleaned: dict[str, Any] = redacted(found)
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
            "jobs": [asdict(job) for job in facts.jobs],
            "ended": facts.ended,
            "failed": facts.failed,
        }

    def _tails(self) -> dict[str, list[dict[str, Any]]]:
        folder = self.run_dir / "logs"
        for name in logs.names(folder):
            try:
                info = (folder / f"{name}.log").stat()
            except OSError:
                continue
            mark = (info.st_ino, info.st_size, info.st_mtime_ns)
            if name not in self._logs or self._logs[name][0] != mark:
                # Only what has grown is read again, and of that only the end.
                lines = logs.parse(name, logs.tail(folder / f"{name}.log", 32 * 1024), info.st_mtime)
                self._logs[name] = (
                    mark,
                    [asdict(line) | {"text": line.text[:1000]} for line in list(lines)[-LOG_LINES:]],
                )
        return {name: lines for name, (_, lines) in self._logs.items()}

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
    """Ask an engine's /health, which loads and wakes nothing."""
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
