"""What ComfyUI is doing: its queue, its last jobs and their outputs, read when it reports a change."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from hearmeman.page.kinds import kind_of

LISTEN_SECONDS = 15.0
"""The longest time between two looks while ComfyUI is silent; it says when its queue changes."""
RETRY_SECONDS = 2.0
MOST_LISTED = 20
"""Above this many waiting prompts, only their number is read: /queue contains every graph."""
KEPT_JOBS = 24
_BAR = re.compile(r"(\d+)%\|[^|]*\|\s*(\d+)/(\d+)\s*\[([^<\]]*)<([^,\]]*)(?:,\s*([^\]]*))?\]")


@dataclass(frozen=True)
class Step:
    """A sampler's progress, from its progress bar."""

    value: int
    """Finished steps."""
    most: int
    """All steps."""
    left: str
    """Time left, as the bar writes it: 00:12; empty if unknown."""
    speed: str
    """Its speed, as the bar writes it: 1.52it/s."""


@dataclass(frozen=True)
class Media:
    """One output file."""

    filename: str
    """Its name."""
    subfolder: str
    """Folder below the output folder."""
    kind: str
    """image, video, audio or other."""


@dataclass(frozen=True)
class Job:
    """One prompt that ended."""

    id: str
    """ComfyUI's id of it."""
    ok: bool
    """Whether it completed."""
    at: float
    """When it ended, Unix seconds; 0 if ComfyUI does not say."""
    seconds: float | None
    """How long it ran; None if ComfyUI does not say."""
    problem: str
    """Node and reason, if it failed."""
    interrupted: bool
    """Whether a person stopped it."""
    outputs: tuple[Media, ...]
    """Files in the output folder."""


def step_of(drawn: str) -> Step | None:
    """Read a progress bar (in tqdm's format, as ComfyUI's samplers draw it); None if there is none."""
    found = _BAR.search(drawn)
    if not found:
        return None
    left, speed = (found[5] or "").strip(), (found[6] or "").strip()
    return Step(int(found[2]), int(found[3]), "" if "?" in left else left, "" if "?" in speed else speed)


def job_of(prompt_id: str, entry: Mapping[str, Any]) -> Job:
    """Read one entry of ComfyUI's history."""
    status = entry.get("status") or {}
    begun = ended = 0.0
    problem, interrupted = "", False
    for message in status.get("messages") or []:
        if not isinstance(message, list) or len(message) != 2 or not isinstance(message[1], dict):
            continue
        name, data = message
        at = float(data.get("timestamp") or 0) / 1000
        if name == "execution_start":
            begun = at
        elif name in ("execution_success", "execution_error", "execution_interrupted"):
            ended = at
            interrupted = name == "execution_interrupted"
            if name == "execution_error":
                said = str(data.get("exception_message") or "").strip()
                problem = f"node {data.get('node_id')} ({data.get('node_type')}): {data.get('exception_type')}: {said}"
    ok = bool(status.get("completed", True)) and not problem and not interrupted
    seconds = ended - begun if begun and ended >= begun else None
    return Job(prompt_id, ok, ended, seconds, problem[:500], interrupted, tuple(_media(entry.get("outputs") or {})))


def _media(outputs: Mapping[str, Any]) -> Iterable[Media]:
    for shown in outputs.values():
        for items in shown.values() if isinstance(shown, dict) else ():
            for item in items if isinstance(items, list) else ():
                # Temporary files and inputs are not outputs.
                if isinstance(item, dict) and item.get("type") == "output" and isinstance(item.get("filename"), str):
                    yield Media(item["filename"], str(item.get("subfolder") or ""), kind_of(item["filename"]))


@dataclass
class Facts:
    """What is known about ComfyUI; a restart of the door forgets it all, and none of it is secret."""

    answers: bool = False
    """Whether it answered last time."""
    running: dict[str, Any] | None = None
    """The running prompt: id, nodes (their number), classes, seen (since when, Unix seconds)."""
    waiting: int = 0
    """Waiting prompts."""
    jobs: deque[Job] = field(default_factory=lambda: deque(maxlen=KEPT_JOBS))
    """Ended jobs, newest first."""
    ended: int = 0
    """Jobs that ended since this was started."""
    failed: int = 0
    """How many of them failed."""


class Watcher:
    """Keeps `facts` up to date, with one websocket on which ComfyUI says when its queue changes."""

    def __init__(self, url: str, ended: Callable[[Job], None] = lambda job: None) -> None:
        self.url, self.facts = url.rstrip("/"), Facts()
        self._ended, self._known, self._first = ended, dict[str, None](), True
        self.changed: Callable[[], None] = lambda: None
        """Called when something changed."""

    async def watch(self) -> None:
        """Watch forever."""
        timeout = aiohttp.ClientTimeout(total=10, sock_connect=5)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                try:
                    await self._look(session)
                    await self._listen(session)
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError, IndexError):
                    if self.facts.answers:
                        self.facts.answers, self.facts.running, self.facts.waiting = False, None, 0
                        self.changed()
                await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self, session: aiohttp.ClientSession) -> None:
        # Its own client id: ComfyUI sends a prompt's events to the socket of the client that queued it.
        address = f"{self.url}/ws?clientId=hearmeman-page"
        async with session.ws_connect(address, heartbeat=30, max_msg_size=0) as socket:
            while not socket.closed:
                with contextlib.suppress(TimeoutError):
                    message = await socket.receive(LISTEN_SECONDS)
                    if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                        return
                    if message.type is not aiohttp.WSMsgType.TEXT or json.loads(message.data).get("type") != "status":
                        continue
                await self._look(session)
                # When a script fills the queue, there is an event for every prompt.
                await asyncio.sleep(0.5)

    async def _look(self, session: aiohttp.ClientSession) -> None:
        facts = self.facts
        info = await self._get(session, "/prompt")
        remaining = int(info["exec_info"]["queue_remaining"])
        if 0 < remaining <= MOST_LISTED:
            queue = await self._get(session, "/queue")
            rows = queue.get("queue_running") or []
            facts.running = self._running(rows[0]) if rows else None
            facts.waiting = len(queue.get("queue_pending") or [])
        else:
            facts.running = facts.running if remaining else None
            facts.waiting = max(0, remaining - 1)
        history = await self._get(session, f"/history?max_items={KEPT_JOBS}")
        for prompt_id, entry in history.items():
            if prompt_id not in self._known and isinstance(entry, dict):
                self._known[prompt_id] = None
                job = job_of(prompt_id, entry)
                facts.jobs.appendleft(job)
                # Jobs that ended before this started are shown, but not counted again.
                if not self._first:
                    facts.ended += 1
                    facts.failed += not job.ok and not job.interrupted
                    self._ended(job)
        while len(self._known) > 10 * KEPT_JOBS:
            self._known.pop(next(iter(self._known)))
        self._first, facts.answers = False, True
        self.changed()

    def _running(self, row: list[Any]) -> dict[str, Any]:
        before = self.facts.running or {}
        graph = row[2] if isinstance(row[2], dict) else {}
        classes = sorted({str(node.get("class_type")) for node in graph.values() if isinstance(node, dict)})
        seen = before["seen"] if before.get("id") == row[1] else time.time()
        return {"id": str(row[1]), "nodes": len(graph), "classes": classes, "seen": seen}

    async def _get(self, session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
        async with session.get(self.url + path) as answer:
            answer.raise_for_status()
            found = await answer.json(content_type=None)
        if not isinstance(found, dict):
            raise ValueError(f"{path} is no object")
        return found
