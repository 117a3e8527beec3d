"""Sends news of the pod to NOTIFY_URL: a webhook that takes JSON, or an ntfy topic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from hearmeman.log import log
from hearmeman.redact import redact
from hearmeman.status.collect import countdown
from hearmeman.terminal import count, duration, plain

BATCH_JOBS = 2
"""This many jobs without a pause are a batch..."""
BATCH_SECONDS = 60.0
"""...or a single job that ran this long."""
QUIET_SECONDS = 5.0
"""A batch is over after this long without a job: a script takes a moment to queue the next."""
AGAIN_SECONDS = 600.0
"""The shortest time between messages about the same failure: a part that keeps failing is reported once."""
_TRIES = (0.0, 2.0, 10.0, 60.0)


@dataclass(frozen=True)
class Message:
    """A message."""

    event: str
    """ready, failed, batch_done or idle_stop."""
    title: str
    """One line."""
    text: str
    """What the reader will want to know next."""
    urgent: bool = False
    """Whether someone should act."""


@dataclass
class News:
    """Finds what is new since the last look; pure, except for its memory."""

    was_ready: bool = False
    failing: frozenset[str] = frozenset()
    began: float | None = None
    """When the current jobs began."""
    jobs: int = 0
    """Jobs that had ended by then."""
    failed_jobs: int = 0
    busy_at: float = 0.0
    warned: bool = False
    """Whether the pod's end was already near."""
    said: dict[str, float] = field(default_factory=dict)

    def look(self, found: Mapping[str, Any], now: float) -> list[Message]:
        """The messages about `found` at `now` (Unix seconds)."""
        pod = found["boot"].get("pod") or "the pod"
        messages = [*self._ready(found, pod), *self._failed(found, pod, now), *self._batch(found, pod, now)]
        return [*messages, *self._idle(found, pod, now)]

    def _ready(self, found: Mapping[str, Any], pod: str) -> list[Message]:
        if self.was_ready or found["state"]["word"] != "ready":
            return []
        self.was_ready = True
        seconds = found["phases"].get("comfyui_ready")
        after = f" {duration(seconds)} after its start" if seconds else ""
        return [Message("ready", f"{pod} is ready", f"ComfyUI on {pod} is ready{after}.")]

    def _failed(self, found: Mapping[str, Any], pod: str, now: float) -> list[Message]:
        errors = {one["what"]: one["fix"] for one in found["problems"] if one["level"] == "error"}
        new = [what for what in errors if what not in self.failing]
        new = [what for what in new if now - self.said.get(what, float("-inf")) > AGAIN_SECONDS]
        self.failing = frozenset(errors)
        self.said.update(dict.fromkeys(new, now))
        return [Message("failed", f"{pod}: something failed", f"{w}. {errors[w]}".strip(), True) for w in new]

    def _batch(self, found: Mapping[str, Any], pod: str, now: float) -> list[Message]:
        facts = found["comfyui"]
        if facts["running"] is not None or facts["waiting"]:
            if self.began is None:
                self.began = now
                self.jobs, self.failed_jobs = facts["ended"], facts["failed"]
            self.busy_at = now
            return []
        if self.began is None or now - self.busy_at < QUIET_SECONDS or not facts["answers"]:
            return []
        done, failed, took = facts["ended"] - self.jobs, facts["failed"] - self.failed_jobs, self.busy_at - self.began
        self.began = None
        if done < BATCH_JOBS and took < BATCH_SECONDS:
            return []
        text = f"{count(done, 'job')} ended in {duration(took)}" + (f", {failed} failed" if failed else "")
        return [Message("batch_done", f"{pod}: the queue is empty", f"{text}.", failed > 0)]

    def _idle(self, found: Mapping[str, Any], pod: str, now: float) -> list[Message]:
        idle = found.get("idle") or {}
        before, self.warned = self.warned, bool(idle.get("warns"))
        if before or not self.warned:
            return []
        return [Message("idle_stop", f"{pod} ends soon", f"{pod} {countdown(idle, now)}: {idle.get('why')}.", True)]


def request(url: str, message: Message, pod: str, now: float) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Make the request: (address, headers, aiohttp's body)."""
    title, text = redact(plain(message.title)), redact(plain(message.text))
    parts = urlsplit(url)
    if parts.scheme in ("ntfy", "ntfys") or (parts.hostname or "").split(".")[0] == "ntfy":
        address = url.replace("ntfys://", "https://", 1).replace("ntfy://", "http://", 1)
        headers = {"Title": title.encode("ascii", "replace").decode(), "Tags": message.event}
        headers["Priority"] = "high" if message.urgent else "default"
        return address, headers, {"data": text.encode()}
    body = {
        "event": message.event,
        "pod": pod,
        "title": title,
        "message": text,
        "urgent": message.urgent,
        "at": round(now, 3),
    }
    # Slack and Mattermost read `text`, Discord `content`.
    return url, {}, {"json": {**body, "text": f"{title}: {text}", "content": f"{title}: {text}"}}


class Notifier:
    """Regularly looks for news and sends it; an unavailable receiver is tried a few times and holds nothing up."""

    LOOK_SECONDS = 4.0

    def __init__(self, url: str, pod: str, look: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
        self._url, self._pod, self._look = url, pod, look
        self._news = News()
        self._sending: set[asyncio.Task[bool]] = set()

    async def watch(self) -> None:
        """Watch for ever."""
        while True:
            try:
                found = await self._look()
                for message in self._news.look(found, time.time()):
                    task = asyncio.create_task(self.send(message))
                    self._sending.add(task)
                    task.add_done_callback(self._sending.discard)
            except Exception as error:  # One failed look must not stop the later ones.
                log("notify.look_failed", why=f"{type(error).__name__}: {error}")
            await asyncio.sleep(self.LOOK_SECONDS)

    async def send(self, message: Message) -> bool:
        """Send one message; the address may be a secret and is never logged."""
        why = ""
        for pause in _TRIES:
            await asyncio.sleep(pause)
            address, headers, body = request(self._url, message, self._pod, time.time())
            try:
                timeout = aiohttp.ClientTimeout(total=20)
                async with (
                    aiohttp.ClientSession(timeout=timeout) as session,
                    session.post(address, headers=headers, allow_redirects=False, **body) as answer,
                ):
                    if answer.status < 300:
                        log("notify.sent", notice=message.event)
                        return True
                    why = f"it answered {answer.status}"
                    if answer.status < 500 and answer.status != 429:
                        break
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                why = type(error).__name__
        log("notify.failed", notice=message.event, why=why, means="check NOTIFY_URL")
        return False
