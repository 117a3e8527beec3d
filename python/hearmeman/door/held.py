"""Answers on the ports of a pod that could not start: shows the reason to browsers, programs and health checks."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from aiohttp import web

from hearmeman.door import pages
from hearmeman.log import log
from hearmeman.state_file import read_json
from hearmeman.status.collect import countdown


def app(run_dir: Path) -> web.Application:
    """Make the application: /healthz says that the pod is alive, everything else why it cannot start and when it ends."""
    reason = str(read_json(run_dir / "held.json").get("reason", ""))

    async def alive(request: web.Request) -> web.Response:
        return web.json_response({"alive": True, "held": True})

    async def answer(request: web.Request) -> web.Response:
        idle = read_json(run_dir / "idle" / "idle.json")
        if pages.for_browser(request.headers):
            return pages.answer(request.headers, pages.held(reason, countdown(idle, time.time())), "held")
        body = {"ready": False, "held": True, "error": reason, "idle": idle or None}
        return web.json_response(body, status=503, headers={"Cache-Control": "no-store"})

    made = web.Application(client_max_size=8192)
    made.router.add_get("/healthz", alive)
    made.router.add_route("*", "/{path:.*}", answer)
    return made


async def serve(run_dir: Path) -> None:
    """Serve on the ports of held.json that are free, until cancelled."""
    runner = web.AppRunner(app(run_dir), access_log=None)
    await runner.setup()
    for host, port in read_json(run_dir / "held.json").get("listens", []):
        try:
            await web.TCPSite(runner, host, int(port)).start()
        except OSError as error:
            log("door.closed", host=host, port=port, why=error.strerror)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
