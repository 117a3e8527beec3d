"""Looks for use of the pod: jobs, speech, sessions, fetches and uploads; who merely looks at its pages does not count."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from hearmeman.idle.rules import Look
from hearmeman.state_file import read_json

_SESSION = re.compile(r"sshd(?:-session)?: [^ @]+@")
"""What sshd calls itself once a person has logged in; one who only knocks is shown without the @."""
_FRESH_SECONDS = 120.0
"""A fetch that has written no progress for so long has died."""
_SPEECH = ("voice_characters_total", "voice_cancelled_total")


@dataclass(frozen=True)
class Places:
    """Where the pod's parts are asked."""

    comfyui: str
    """ComfyUI's address inside the pod."""
    voices: Mapping[str, str]
    """Voice API -> its address inside the pod."""
    jupyter: str
    """JupyterLab's address inside the pod; empty where there is none."""
    jupyter_token: str
    """What it asks for."""
    state: Path
    """The pod's state folder."""
    proc: Path = Path("/proc")
    """The kernel's list of processes."""
    terminals: Path = Path("/dev/pts")
    """The terminals that are open."""


class Activity:
    """Looks again and again.

    A part that takes questions and answers none is at work for `patience` seconds, and stuck after that: while ComfyUI loads
    a model it may answer nobody.
    """

    def __init__(
        self,
        places: Places,
        patience: float,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        timeout: float = 10.0,
    ) -> None:
        self._places, self._patience, self._wall, self._clock = places, patience, wall, clock
        self._silent: dict[str, float] = {}
        """Since when a part has not answered."""
        # Not through a proxy: all of this is loopback.
        self._http = urllib3.PoolManager(timeout=urllib3.Timeout(timeout), retries=False)

    def look(self) -> Look:
        """See what is in use now."""
        uses: list[str] = []
        marks: dict[str, object] = {}
        for part in (self._comfyui, self._voices, self._jupyter):
            for name, in_use, mark in part():
                uses += [name] if in_use else []
                marks |= {name: mark} if mark is not None else {}
        uses += ["an SSH session"] if self._has_session() else []
        marks["a terminal"] = self._typed()
        models, sync = (read_json(self._places.state / f"{name}.json") for name in ("models", "sync"))
        if models.get("state") == "fetching" and self._wall() - float(models.get("updated", 0)) < _FRESH_SECONDS:
            uses.append("a model fetch")
        if to_send(sync) and self._runs(sync.get("pid"), "sync"):
            uses.append("an upload")
        marks["an upload"] = (sync.get("uploaded_files"), sync.get("uploaded_bytes"))
        return Look(tuple(uses), marks)

    def _comfyui(self) -> Iterator[tuple[str, bool, object]]:
        name = "a job of ComfyUI"
        url = self._places.comfyui
        try:
            remaining = int(json.loads(self._get("ComfyUI", f"{url}/prompt"))["exec_info"]["queue_remaining"])
            last = tuple(json.loads(self._get("ComfyUI", f"{url}/history?max_items=1")))
        except urllib3.exceptions.ReadTimeoutError:
            yield "ComfyUI, which is too busy to answer", self._is_busy("ComfyUI"), None
        except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError):
            return
        else:
            yield name, remaining > 0, last

    def _voices(self) -> Iterator[tuple[str, bool, object]]:
        for api, url in self._places.voices.items():
            name = f"a request to {api}"
            try:
                values = measures(self._get(api, f"{url}/metrics").decode())
            except urllib3.exceptions.ReadTimeoutError:
                yield f"{api}, which is too busy to answer", self._is_busy(api), None
            except (urllib3.exceptions.HTTPError, ValueError):
                continue
            else:
                busy = values.get("voice_in_flight", 0) + values.get("voice_waiting", 0) > 0
                yield name, busy, tuple(values.get(measure) for measure in _SPEECH)

    def _jupyter(self) -> Iterator[tuple[str, bool, object]]:
        if not self._places.jupyter:
            return
        try:
            # Without no_track_activity the question itself would be a use.
            url = f"{self._places.jupyter}/api/status?no_track_activity=1"
            found = json.loads(self._get("JupyterLab", url, {"Authorization": f"token {self._places.jupyter_token}"}))
            yield "a JupyterLab session", int(found["connections"]) > 0, str(found["last_activity"])
        except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError):
            return

    def _get(self, part: str, url: str, headers: Mapping[str, str] | None = None) -> bytes:
        try:
            answer = self._http.request("GET", url, headers=headers)
        except urllib3.exceptions.ReadTimeoutError:
            self._silent.setdefault(part, self._clock())
            raise
        except urllib3.exceptions.HTTPError:
            # It is not there: the next one has its own time to begin.
            self._silent.pop(part, None)
            raise
        self._silent.pop(part, None)
        if answer.status != 200:
            raise ValueError(f"{url} answered {answer.status}")
        return answer.data

    def _is_busy(self, part: str) -> bool:
        return self._clock() - self._silent[part] <= self._patience

    def _runs(self, pid: object, word: str) -> bool:
        """Tell whether the process that wrote a report still runs: the report of one that is gone stays on the volume."""
        try:
            return word.encode() in (self._places.proc / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return False

    def _has_session(self) -> bool:
        for path in self._places.proc.glob("[0-9]*/cmdline"):
            try:
                title = path.read_bytes().rstrip(b"\0").decode(errors="replace")
            except OSError:
                continue
            if _SESSION.match(title):
                return True
        return False

    def _typed(self) -> float:
        # The kernel moves the time of access when somebody types; what programs print moves only the other one.
        times = []
        for path in self._places.terminals.glob("[0-9]*"):
            try:
                times.append(path.stat().st_atime)
            except OSError:
                continue
        return max(times, default=0.0)


def to_send(sync: Mapping[str, Any]) -> int:
    """Count the outputs that are on their way; those that fail again and again do not keep a pod alive."""
    if sync.get("problem"):
        return 0
    return max(0, int(sync.get("backlog_files", 0)) - int(sync.get("failing_files", 0)))


def measures(page: str) -> dict[str, float]:
    """Read the measures without labels of a page in Prometheus' words."""
    found = {}
    for line in page.splitlines():
        name, _, value = line.partition(" ")
        if name and not line.startswith("#") and "{" not in name:
            found[name] = float(value)
    return found
