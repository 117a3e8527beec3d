"""Follows a prompt to its end: through websocket events, and ComfyUI's history in case an event is missed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from hearmeman.workflows.answers import NotReachableError, Progress, Report, RunFailedError
from hearmeman.workflows.connection import Connection
from hearmeman.workflows.library import Graph

POLL_SECONDS = 0.5
"""How often to read the history without events."""
SILENCE_SECONDS = 5.0
"""How often to read the history while waiting for events."""
GONE_SECONDS = 2.0
"""How long a prompt may be in neither the queue nor the history: a new one may still be under validation."""
_FIRST_LOOK = 0.02


@dataclass
class Ear:
    """What a websocket has told us."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by an event that says that the prompt is over."""
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is open, or cannot be opened."""
    connected: bool = False


@contextlib.asynccontextmanager
async def events(
    connection: Connection, client_id: str, prompt_id: str, graph: Graph, report: Report
) -> AsyncIterator[Ear]:
    """Report progress meanwhile, and note when an event says that the prompt is over."""
    ear = Ear()
    task = asyncio.create_task(_listen(connection, client_id, prompt_id, graph, report, ear))
    try:
        # Listen before submitting: a quick prompt could end before we listen.
        await ear.tried.wait()
        yield ear
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _listen(
    connection: Connection, client_id: str, prompt_id: str, graph: Graph, report: Report, ear: Ear
) -> None:
    assert connection.session is not None
    while True:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError):
            address = f"{connection.url}/ws?clientId={client_id}"
            async with connection.session.ws_connect(address, heartbeat=20, max_msg_size=0) as socket:
                ear.connected = True
                ear.tried.set()
                async for message in socket:
                    # Binary messages are previews.
                    if message.type == aiohttp.WSMsgType.TEXT and _read(message.data, prompt_id, graph, report):
                        ear.over.set()
                        return
        ear.connected = False
        ear.tried.set()
        # Proxies end long connections: reconnect with the same id.
        await asyncio.sleep(2 * POLL_SECONDS)


async def history(connection: Connection, prompt_id: str, ear: Ear, patience: float) -> dict[str, Any]:
    """Wait for a prompt's entry. An end without an event is found, and a long silent step is not an end."""
    answered, known, pause = time.monotonic(), time.monotonic(), _FIRST_LOOK
    while True:
        try:
            found = await _entry(connection, prompt_id)
            if found is None and await _is_queued(connection, prompt_id):
                known = time.monotonic()
            elif found is None:
                # It may have ended between the two questions: a busy ComfyUI takes seconds to answer one.
                found = await _entry(connection, prompt_id)
            if found is not None:
                return found
            answered = time.monotonic()
        except NotReachableError:
            if time.monotonic() - answered > patience:
                raise
            known = time.monotonic()
        if time.monotonic() - known > GONE_SECONDS:
            raise RunFailedError(
                f"ComfyUI no longer knows prompt {prompt_id}: it was taken out of the queue, or ComfyUI was "
                "restarted, as when memory runs out; look at its log and run the workflow again"
            )
        if ear.over.is_set():
            # It appears in the history a moment after the event.
            await asyncio.sleep(_FIRST_LOOK)
        else:
            is_silent = ear.connected and time.monotonic() - known < POLL_SECONDS
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ear.over.wait(), SILENCE_SECONDS if is_silent else pause)
            pause = min(2 * pause, POLL_SECONDS)


async def _entry(connection: Connection, prompt_id: str) -> dict[str, Any] | None:
    found = (await connection.get_object(f"/history/{prompt_id}")).get(prompt_id)
    return found if isinstance(found, dict) else None


async def _is_queued(connection: Connection, prompt_id: str) -> bool:
    queue = await connection.get_object("/queue")
    rows = [*queue.get("queue_running", []), *queue.get("queue_pending", [])]
    return any(prompt_id in row[1:2] for row in rows)


def _read(text: str, prompt_id: str, graph: Graph, report: Report) -> bool:
    """Report what an event says; tells whether the prompt is over."""
    event = json.loads(text)
    kind, data = event.get("type"), event.get("data") or {}
    if data.get("prompt_id") != prompt_id:
        return False
    node = data.get("node")
    if kind in ("execution_success", "execution_error", "execution_interrupted"):
        return True
    if kind == "executing" and node is None:
        return True
    if kind in ("executing", "progress") and node is not None:
        name = str(graph.get(str(node), {}).get("class_type", node))
        report(Progress(str(node), name, data.get("value"), data.get("max")))
    return False
