"""Sends the page's changes to any number of tabs: one reader watches the pod, every tab gets what it has not seen yet."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from hearmeman.log import log
from hearmeman.page import document
from hearmeman.page.html import Html

TICK_SECONDS = 1.0
PING_SECONDS = 10.0
"""Well within the 100 seconds after which proxies cut silent connections, and the 20 after which the page asks by
itself.
"""
STUCK_SECONDS = 30.0
"""A tab that reads nothing for this long is disconnected; it reconnects by itself."""
MOST_STREAMS = 200
PADDING = ":" + " " * 2048 + "\n"
"""Some proxies and browsers buffer the first bytes of an answer."""
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


class Hub:
    """What the page shows now, and when each part changed."""

    def __init__(self, look: Callable[[], dict[str, Any]]) -> None:
        self._look = look
        self._renderer = document.Renderer()
        self.found: dict[str, Any] = {}
        self.parts: dict[str, Html] = {}
        self._told = ("", "", "")
        self._changed: dict[str, int] = {}
        self._number = 0
        self._epoch = secrets.token_hex(4)
        self._at = float("-inf")
        self._lock = asyncio.Lock()
        self._read_anew = asyncio.Condition()
        self.streams = 0
        self._reading: asyncio.Task[None] | None = None

    @property
    def mark(self) -> str:
        """What a tab that has seen all of this sends back to continue from here."""
        return f"{self._epoch}-{self._number}"

    async def fresh(self) -> None:
        """Look at the pod, unless that was done a moment ago."""
        async with self._lock:
            if time.monotonic() - self._at >= TICK_SECONDS / 2:
                await self._read()

    async def _read(self) -> None:
        found = await asyncio.to_thread(self._look)
        parts = self._renderer.render(found)
        self._at = time.monotonic()
        changed = [name for name, html in parts.items() if self.parts.get(name) != html]
        self.found, self.parts = found, parts
        if changed:
            self._number += 1
            self._changed.update(dict.fromkeys(changed, self._number))
            async with self._read_anew:
                self._read_anew.notify_all()

    def since(self, mark: str) -> dict[str, Html]:
        """The sections that changed after `mark`; all of them if the mark is not from this process."""
        epoch, _, number = mark.partition("-")
        seen = int(number) if epoch == self._epoch and number.isdigit() else -1
        return {name: html for name, html in self.parts.items() if self._changed.get(name, 0) > seen}

    def _news(self, mark: str) -> str:
        """What changed after `mark` as JSON, empty if nothing did; made once for all tabs at the same point."""
        if self._told[:2] != (mark, self.mark):
            parts = self.since(mark)
            self._told = (mark, self.mark, json.dumps(parts) if parts else "")
        return self._told[2]

    async def _keep_reading(self) -> None:
        while self.streams:
            try:
                await self.fresh()
            except Exception as error:  # One failed look must not freeze every tab for good.
                log("page.look_failed", why=f"{type(error).__name__}: {error}")
            await asyncio.sleep(TICK_SECONDS)
        self._reading = None

    async def close(self, app: web.Application) -> None:
        """Stop looking."""
        if self._reading is not None:
            self._reading.cancel()

    async def poll(self, request: web.Request) -> web.Response:
        """Return what changed, for tabs that cannot use the stream."""
        await self.fresh()
        found = {"mark": self.mark, "at": time.time(), "sections": self.since(request.query.get("since", ""))}
        return web.json_response(found, headers={"Cache-Control": "no-store"})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Stream the changes until the tab closes."""
        if self.streams >= MOST_STREAMS:
            return web.json_response(
                {"error": "too many open tabs on this pod"}, status=503, headers={"Retry-After": "30"}
            )
        answer = web.StreamResponse(headers=HEADERS)
        # A slow tab has at most one change waiting: what it has not read yet is sent in its newest state.
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        self.streams += 1
        if self._reading is None:
            self._reading = asyncio.create_task(self._keep_reading())
        mark = request.headers.get("Last-Event-ID") or request.query.get("since", "")
        try:
            await self._send(answer, f"{PADDING}retry: 3000\n\n")
            while True:
                async with self._read_anew:
                    if not self._news(mark):
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._read_anew.wait(), PING_SECONDS)
                news, mark_now = self._news(mark), self.mark
                # The time lets a tab find out that a proxy is delaying it.
                told = f'data: {{"at": {time.time():.3f}, "sections": {news or "{}"}}}\n\n'
                if news:
                    await self._send(answer, f"id: {mark_now}\nevent: sections\n{told}")
                    mark = mark_now
                else:
                    await self._send(answer, f"event: ping\n{told}")
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self.streams -= 1
        return answer

    @staticmethod
    async def _send(answer: web.StreamResponse, text: str) -> None:
        async with asyncio.timeout(STUCK_SECONDS):
            await answer.write(text.encode())
