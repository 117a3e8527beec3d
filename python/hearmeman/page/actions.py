"""What a visitor may start from the page: a restart or a spoken sentence; only by POST, from this page, with access."""

from __future__ import annotations

import asyncio
import configparser
import ipaddress
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from hearmeman.errors import HearmemanError
from hearmeman.log import log
from hearmeman.page import document
from hearmeman.page.work import LONGEST_TEXT
from hearmeman.status import restart

_PROXIED = ("X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Cf-Ray", "Cf-Connecting-Ip", "X-Real-Ip", "Via")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
SPEAK_SECONDS = 120.0


def may_act(request: web.BaseRequest, gated: bool) -> bool:
    """Tell whether this visitor may start something: the gate let them in, or they are in the pod itself."""
    if gated:
        # In that case only the gate reaches this server, over its socket.
        return True
    try:
        local = ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False
    # A tunnel into the pod also comes from loopback, and another site's host name may point here.
    host = request.headers.get("Host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return local and name in _LOOPBACK_NAMES and not any(header in request.headers for header in _PROXIED)


class Actions:
    """Carries out actions, and logs each."""

    def __init__(self, run_dir: Path, boot: Mapping[str, Any], foreign: Callable[[Mapping[str, str]], bool]) -> None:
        self.run_dir, self.boot, self._foreign = run_dir, boot, foreign
        self._speaking = asyncio.Semaphore(2)

    async def act(self, request: web.Request) -> web.StreamResponse:
        """Answer one action."""
        name = request.match_info["action"]
        gated = bool(self.boot.get("gated"))
        if not may_act(request, gated):
            return self._say(request, 403, "Not from here", "Set ACCESS_TOKEN to act on the pod from outside it.")
        if self._foreign(request.headers):
            return self._say(
                request, 403, "Not from there", "This came from another site's page: open the pod's own page."
            )
        fields = {key: str(value) for key, value in (await request.post()).items()}
        if name == "restart":
            return await self._restart(request, fields.get("name", ""))
        if name == "speak":
            return await self._speak(request, fields.get("engine", ""), fields.get("text", ""))
        raise web.HTTPNotFound

    async def _restart(self, request: web.Request, process: str) -> web.StreamResponse:
        if process in ("door", "gate"):
            # It would end before it could answer.
            return self._say(request, 400, "Not this one", f"Restart {process} with `hearmeman restart {process}`.")
        log("page.acted", action="restart", process=process, by=request.remote or "gate")
        try:
            await asyncio.to_thread(restart.restart, self.run_dir, [process])
        except (HearmemanError, OSError, configparser.Error) as error:
            return self._say(request, 400, "Not restarted", str(error))
        return self._say(request, 200, "Restarted", f"{process} was restarted.", back=True)

    async def _speak(self, request: web.Request, engine: str, text: str) -> web.StreamResponse:
        url, text = (self.boot.get("voices") or {}).get(engine), text.strip()
        if not url or not text or len(text) > LONGEST_TEXT:
            return self._say(
                request, 400, "Nothing to speak", f"Name an engine, and a text of at most {LONGEST_TEXT} characters."
            )
        log("page.acted", action="speak", engine=engine, characters=len(text), by=request.remote or "gate")
        if self._speaking.locked():
            return self._say(request, 429, "Busy", "Two sentences are being spoken: try again in a moment.")
        body = {"model": "tts-1", "input": text, "voice": "alloy", "response_format": "wav"}
        timeout = aiohttp.ClientTimeout(total=SPEAK_SECONDS, sock_connect=5)
        try:
            async with (
                self._speaking,
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(f"{url}/v1/audio/speech", json=body) as spoken,
            ):
                sound = await spoken.read()
                if spoken.status != 200:
                    said = sound.decode("utf-8", "replace")[:300]
                    return self._say(request, 502 if spoken.status >= 500 else spoken.status, "Not spoken", said)
        except (aiohttp.ClientError, TimeoutError) as error:
            return self._say(
                request, 503, "Not spoken", f"{engine} does not answer ({str(error) or type(error).__name__})."
            )
        return web.Response(
            body=sound,
            content_type="audio/wav",
            headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        )

    @staticmethod
    def _say(request: web.Request, status: int, title: str, text: str, back: bool = False) -> web.Response:
        if "application/json" in request.headers.get("Accept", ""):
            return web.json_response({"ok": status == 200, "message": text}, status=status)
        if back:
            return web.Response(status=303, headers={"Location": "/#processes", "Cache-Control": "no-store"})
        if status >= 500 and "Cf-Ray" in request.headers:
            status = 200  # Cloudflare would replace this page with its own.
        page = document.note(title, text)
        return web.Response(status=status, text=page, content_type="text/html", headers=document.HEADERS)
