"""Stands before a ComfyUI as a pod's gate and RunPod's proxy do: wants the token, ends or refuses websockets, fails for a while."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp
from aiohttp import WSMsgType, web

from support.waiting import PATIENCE


@dataclass
class RemotePod:
    """A gate before the ComfyUI at `inner`."""

    inner: str
    token: str
    sockets: str = "pass"
    """pass, refuse, or drop: end each one after its first message."""
    failing: int = 0
    """Requests that are answered as a proxy does whose pod is away."""
    url: str = ""
    seen: list[str] = field(default_factory=list)
    """Method and path of each request that came in with the token."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass one request on."""
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": "this pod requires its token"}, status=401)
        self.seen.append(f"{request.method} {request.path}")
        if self.failing > 0:
            self.failing -= 1
            return web.Response(status=502, text="<h1>Bad gateway</h1>")
        async with aiohttp.ClientSession() as session:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._socket(request, session)
            body, kind = await request.read(), request.headers.get("Content-Type", "application/octet-stream")
            sent = {"data": body, "headers": {"Content-Type": kind}} if body else {}
            async with session.request(request.method, self.inner + request.path_qs, **sent) as answer:  # type: ignore[arg-type]
                return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

    async def _socket(self, request: web.Request, session: aiohttp.ClientSession) -> web.StreamResponse:
        if self.sockets == "refuse":
            return web.Response(status=400)
        outer = web.WebSocketResponse()
        await outer.prepare(request)
        async with session.ws_connect(self.inner + request.path_qs) as inner:

            async def until_gone() -> None:
                async for _ in outer:
                    pass
                await inner.close()

            gone = asyncio.create_task(until_gone())
            async for message in inner:
                if message.type != WSMsgType.TEXT or self.sockets == "drop":
                    break
                with contextlib.suppress(ConnectionError):
                    await outer.send_str(message.data)
            await outer.close()
            await gone
        return outer


@contextlib.contextmanager
def remote_pod(inner: str, token: str = "the-token-of-this-pod", sockets: str = "pass") -> Iterator[RemotePod]:
    """A gate on a free port, in a thread of its own."""
    pod, loop = RemotePod(inner, token, sockets), asyncio.new_event_loop()
    app = web.Application(client_max_size=100 << 20)
    app.router.add_route("*", "/{path:.*}", pod.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        pod.url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(start(), loop).result(PATIENCE)
    try:
        yield pod
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()
