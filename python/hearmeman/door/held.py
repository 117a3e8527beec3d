"""What the ports of a pod that could not start show: the reason, to browsers, programs and health checks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from hearmeman.door import pages
from hearmeman.log import log


def app(reason: str) -> web.Application:
    """Make the application: /healthz says that the pod lives, everything else why it is no use."""

    async def alive(request: web.Request) -> web.Response:
        return web.json_response({"alive": True, "held": True})

    async def answer(request: web.Request) -> web.Response:
        if pages.for_browser(request.headers):
            return pages.answer(request.headers, pages.held(reason), "held")
        body = {"ready": False, "held": True, "error": reason}
        return web.json_response(body, status=503, headers={"Cache-Control": "no-store"})

    made = web.Application(client_max_size=8192)
    made.router.add_get("/healthz", alive)
    made.router.add_route("*", "/{path:.*}", answer)
    return made


async def serve(held: Mapping[str, Any]) -> None:
    """Serve on the ports that are free until cancelled."""
    runner = web.AppRunner(app(str(held.get("reason", ""))), access_log=None)
    await runner.setup()
    for host, port in held.get("listens", []):
        try:
            await web.TCPSite(runner, host, int(port)).start()
        except OSError as error:
            log("door.closed", host=host, port=port, why=error.strerror)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
