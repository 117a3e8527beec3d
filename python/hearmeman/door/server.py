"""The door's server: health, readiness and status, and the gate's access check."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from hearmeman.door import pages
from hearmeman.door.auth import COOKIE, SECURE_COOKIE, SESSION_SECONDS, Lock, SlowDown, is_foreign, without_ours
from hearmeman.door.nginx import CHECK, DOWN, LOGIN, REFUSED
from hearmeman.log import log
from hearmeman.page import document
from hearmeman.page.actions import Actions, may_act
from hearmeman.page.comfyui import Watcher
from hearmeman.page.metrics import Metrics
from hearmeman.page.notify import Notifier
from hearmeman.page.outputs import Outputs
from hearmeman.page.snapshot import Snapshot
from hearmeman.page.stream import Hub
from hearmeman.state_file import read_json, write_json
from hearmeman.status import collect

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
LOOK_SECONDS = 1.0
"""Seconds between checks of ComfyUI until it is ready; then ten times that."""
BACKLOG = 4096
"""A unix socket refuses connections beyond its backlog, and visitors would see an error."""


class Door:
    """The server of one pod."""

    def __init__(self, run_dir: Path, boot: dict[str, Any], lock: Lock | None, notify_url: str = "") -> None:
        self.run_dir, self.boot, self.lock = run_dir, boot, lock
        self.slow_down = SlowDown()
        self.readiness = collect.Readiness(False, "not checked yet")
        # After a restart of this process, earlier events of the pod's start are already known.
        self.phases: dict[str, float] = dict(read_json(run_dir / "gate" / "door.json").get("phases", {}))
        self.ready_pid = 0
        self.changed = 0.0
        self.looked = float("-inf")
        self.looking = asyncio.Lock()
        self.metrics = Metrics()
        self.comfyui = Watcher(str(boot.get("comfyui_url", "")), self.metrics.ended)
        self.snapshot = Snapshot(run_dir, self.comfyui.facts)
        self.hub = Hub(self.snapshot.look)
        self.notifier = Notifier(notify_url, str(boot.get("pod", "")), self._found) if notify_url else None
        origins = tuple(str(origin) for origin in boot.get("origins", []))

        def foreign(headers: Mapping[str, str]) -> bool:
            return is_foreign(CIMultiDict({**headers, "X-Method": "POST"}), origins)

        self.actions = Actions(run_dir, boot, foreign)

    def app(self) -> web.Application:
        """Make the application; without a lock it has no gate's routes."""
        app = web.Application(client_max_size=8192)
        app.on_shutdown.append(self.hub.close)
        app.router.add_get("/", self.page)
        app.router.add_get("/metrics", self.measure)
        app.router.add_get("/events", self.hub.events)
        app.router.add_get("/sections", self.hub.poll)
        app.router.add_post("/actions/{action}", self.actions.act)
        app.router.add_get("/output/{path:.+}", Outputs(self.comfyui.url).serve)
        app.router.add_static("/static", document.STATIC)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/status", self.status)
        if self.lock is not None:
            app.router.add_route("*", CHECK, self.check)
            app.router.add_route("*", REFUSED, self.refused)
            app.router.add_get(LOGIN, self.form)
            app.router.add_post(LOGIN, self.login)
        app.router.add_route("*", DOWN, self.down)
        return app

    async def _found(self) -> dict[str, Any]:
        await self.hub.fresh()
        return self.hub.found

    async def healthz(self, request: web.Request) -> web.Response:
        """The pod is alive, whatever ComfyUI does."""
        return web.json_response({"alive": True})

    async def readyz(self, request: web.Request) -> web.Response:
        """200 if ComfyUI answers and has its nodes, else 503 and why."""
        await self.look()
        code = 200 if self.readiness.ready else 503
        return web.json_response({"ready": self.readiness.ready, "why": self.readiness.why}, status=code)

    async def page(self, request: web.Request) -> web.Response:
        """The page for a browser; for a program, everything it shows, as JSON. The status is 200 whatever the pod's
        state, which a header names: Cloudflare would replace another answer.
        """
        if not pages.for_browser(request.headers):
            return await self.status(request)
        await self.hub.fresh()
        acts = may_act(request, bool(self.boot.get("gated")))
        text = document.document(self.hub.parts, self.hub.found, self.hub.mark, acts)
        headers = {**document.HEADERS, "X-Hearmeman-State": self.hub.found["state"]["word"]}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def status(self, request: web.Request) -> web.Response:
        """Everything that is known about the pod."""
        await self.hub.fresh()
        found = {**self.hub.found, "logs": [], "tails": {}} if "logs" not in request.query else self.hub.found
        dumps = functools.partial(json.dumps, indent=2)
        return web.json_response(found, dumps=dumps, headers={"Cache-Control": "no-store"})

    async def measure(self, request: web.Request) -> web.Response:
        """The same for Prometheus."""
        await self.hub.fresh()
        body, content_type = self.metrics.render(self.hub.found, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    async def check(self, request: web.Request) -> web.Response:
        """What nginx asks for each request: 204, or 401 after a pause that grows with the failures."""
        assert self.lock is not None
        verdict = self.lock.judge(request.headers, _cookies(request), time.time())
        if verdict.passes:
            clean = without_ours(request.headers.get("Cookie", ""))
            return web.Response(status=204, headers={"X-Clean-Cookie": clean})
        if verdict.tried:
            await self._failed()
        return web.Response(status=401)

    async def refused(self, request: web.Request) -> web.Response:
        """The answer to a refused request: a form for a browser, a sentence for a program."""
        headers = {**pages.HEADERS, "WWW-Authenticate": "Bearer"}
        if pages.for_browser(request.headers):
            page = pages.login(LOGIN, pages.local_path(request.headers.get("X-Uri", "/")))
            return web.Response(status=401, text=page, content_type="text/html", headers=headers)
        text = "this pod requires its token: send the header 'Authorization: Bearer ACCESS_TOKEN'"
        return web.json_response({"error": text}, status=401, headers=headers)

    async def form(self, request: web.Request) -> web.StreamResponse:
        """The login form; a link that holds the token goes through it, and the address without it is shown."""
        if "token" in request.query:
            return await self._enter(request, request.query["token"], request.query.get("next", "/"))
        page = pages.login(LOGIN, pages.local_path(request.query.get("next", "/")))
        return web.Response(text=page, content_type="text/html", headers=pages.HEADERS)

    async def login(self, request: web.Request) -> web.StreamResponse:
        """Check the form; the right token gets a cookie and is redirected to where it wanted to go."""
        fields = await request.post()
        return await self._enter(request, str(fields.get("token", "")), str(fields.get("next", "/")))

    async def _enter(self, request: web.Request, token: str, where: str) -> web.StreamResponse:
        assert self.lock is not None
        where = pages.local_path(where)
        if not self.lock.fits(token):
            await self._failed()
            page = pages.login(LOGIN, where, "That is not the token.")
            return web.Response(status=401, text=page, content_type="text/html", headers=pages.HEADERS)
        secure = request.headers.get("X-Forwarded-Proto", "").lower() == "https"
        answer = web.Response(status=303, headers={**pages.HEADERS, "Location": where})
        answer.set_cookie(
            SECURE_COOKIE if secure else COOKIE,
            self.lock.session(time.time()),
            max_age=SESSION_SECONDS,
            path="/",
            secure=secure,
            httponly=True,
            samesite="Lax",
        )
        return answer

    async def down(self, request: web.Request) -> web.Response:
        """What is shown while the service behind the gate does not answer."""
        service = request.headers.get("X-Service", "The service")
        if pages.for_browser(request.headers):
            return pages.answer(request.headers, pages.down(service, self._own_address()), "starting")
        return web.json_response({"error": f"{service} does not answer yet"}, status=503, headers={"Retry-After": "3"})

    def _own_address(self) -> str:
        ports = self.boot.get("ports", [])
        return next((str(port["address"]) for port in ports if port["service"] == "status page"), "")

    async def _failed(self) -> None:
        pause = self.slow_down.failed(time.monotonic())
        if pause:
            await asyncio.sleep(pause)

    async def watch(self) -> None:
        """Watch ComfyUI forever, and record when it was first ready."""
        while True:
            with contextlib.suppress(OSError):  # A full disk must not end the watch.
                await self.look()
            for _ in range(10 if self.readiness.ready else 1):
                await asyncio.sleep(LOOK_SECONDS)
                if self._keep().get("pid") != self.readiness.pid:
                    break

    async def look(self) -> None:
        """Check ComfyUI, unless that was done a moment ago."""
        async with self.looking:
            if time.monotonic() - self.looked > LOOK_SECONDS / 2:
                await self._look()
                self.looked = time.monotonic()

    def _keep(self) -> dict[str, Any]:
        return read_json(self.run_dir / "keep/comfyui.json")

    async def _look(self) -> None:
        before = self.readiness
        keep = self._keep()
        pid = int(keep.get("pid") or 0)
        self.readiness = await asyncio.to_thread(collect.readiness, self.boot, pid, before)
        if not self.readiness.ready and (end := collect.end_of(keep)):
            self.readiness = dataclasses.replace(self.readiness, why=f"{self.readiness.why}; {end}")
        if self.readiness.ready:
            self.ready_pid = pid
        if self.readiness.ready and "comfyui_ready" not in self.phases:
            self.phases["comfyui_ready"] = collect.since_start(self.boot)
        if self.readiness != before:
            seconds = collect.since_start(self.boot)
            log(
                "pod.ready" if self.readiness.ready else "pod.not_ready",
                seconds=seconds,
                why=self.readiness.why or None,
            )
            if self.readiness.ready != before.ready or not self.changed:
                self.changed = time.time()
            found = {"ready": self.readiness.ready, "why": self.readiness.why, "phases": self.phases}
            # Which ComfyUI was ready last: one that is busy is not one that starts.
            found |= {"pid": self.ready_pid, "changed": self.changed}
            write_json(self.run_dir / "gate" / "door.json", found, durable=False)


async def serve(door: Door, sock: Path, listens: list[tuple[str, int]]) -> None:
    """Serve on a unix socket and on `listens` until cancelled."""
    # A tab with an open stream would hold up the pod's shutdown.
    runner = web.AppRunner(door.app(), access_log=None, shutdown_timeout=0.3)
    await runner.setup()
    sock.unlink(missing_ok=True)
    await web.UnixSite(runner, str(sock), backlog=BACKLOG).start()
    sock.chmod(0o600)
    for host, port in listens:
        try:
            await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
        except OSError as error:
            log("door.closed", host=host, port=port, why=error.strerror)
    watches = [asyncio.create_task(door.watch()), asyncio.create_task(door.comfyui.watch())]
    if door.notifier:
        watches.append(asyncio.create_task(door.notifier.watch()))
    try:
        await asyncio.Event().wait()
    finally:
        for watch in watches:
            watch.cancel()
        await runner.cleanup()


def _cookies(request: web.Request) -> dict[str, str]:
    # By hand: http.cookies drops the whole header at the first cookie that it does not like.
    pairs = (part.strip().partition("=") for part in request.headers.get("Cookie", "").split(";"))
    return {name: value for name, _, value in pairs}
