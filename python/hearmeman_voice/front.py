"""What every request passes through before the app: one spelling per address, limits, an origin check, and a count.

Plain ASGI, so that bodies stream through and a client that hangs up is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearmeman_voice.errors import ApiError
from hearmeman_voice.metrics import Metrics
from hearmeman_voice.voices import MOST_BYTES

LARGEST_JSON = 1 << 20
"""Bytes of a request without an upload: far more than the longest text with every character escaped."""

LARGEST_UPLOAD = MOST_BYTES + (1 << 20)
"""Bytes of an upload with its fields."""

_OWN_PAGES = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)


class Front:
    """Wraps an app."""

    def __init__(self, app: ASGIApp, metrics: Metrics, uploads: Sequence[str] = ()) -> None:
        self._app, self._metrics, self._uploads = app, metrics, tuple(uploads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its address normalized, its body limited and its answer counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (path := one_spelling(scope["path"])) != scope["path"]:
            scope = dict(scope, path=path)
        status = 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._limited(scope, receive, counted)
        finally:
            route = scope.get("route")
            # Only addresses that exist: what a stranger types must not become a label.
            self._metrics.requests.labels(getattr(route, "path", "other"), str(status)).inc()

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        largest = LARGEST_UPLOAD if self._is_upload(scope, headers) else LARGEST_JSON
        try:
            if (declared := headers.get("content-length", "0")).isdigit() and int(declared) > largest:
                raise _too_large(largest)
            await self._app(scope, _counting(receive, largest), send)
        except ApiError as error:
            await JSONResponse(error.body(), error.status, error.advice())(scope, receive, send)

    def _is_upload(self, scope: Scope, headers: Headers) -> bool:
        form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        return form and scope["path"].startswith(self._uploads)


def one_spelling(path: str) -> str:
    """The address without what makes no difference: a leading `/v1`, which OpenAI's clients add, and a trailing slash."""
    path = path.rstrip("/") or "/"
    return path.removeprefix("/v1") if path.startswith("/v1/") else path


def _counting(receive: Receive, largest: int) -> Receive:
    """Stop reading a body at the limit, even if its length is missing or wrong."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > largest:
            raise _too_large(largest)
        return message

    return counted


def _too_large(largest: int) -> ApiError:
    size = f"{largest // 1_000_000} MB"
    return ApiError(413, f"the request is larger than {size}, the limit here", code="too_large")


def may_read(origin: str, host: str, allowed: Sequence[str]) -> bool:
    """Whether a page from `origin` may read the answers of a server that it addresses as `host`.

    Pages of the person's own machine may, such as SillyTavern's, the server's own, and those that were named.
    """
    return "*" in allowed or origin in allowed or bool(_OWN_PAGES.fullmatch(origin)) or urlsplit(origin).netloc == host


class Pages:
    """Checks which page a request comes from, as the browser states it, and answers preflights.

    Any page of the web could speak and upload through a tunnel that somebody has open: it is refused where the server
    is addressed as the person's own machine. Elsewhere the gate knows who may come in, and proxies change the names.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str] = ()) -> None:
        self._app, self._allowed = app, tuple(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        origin = headers.get("origin")
        host = headers.get("host", "")
        if origin is None:
            await self._app(scope, receive, send)
            return
        if not may_read(origin, host, self._allowed):
            if not _OWN_PAGES.fullmatch(f"http://{host}"):
                await self._app(scope, receive, send)
                return
            error = ApiError(
                403,
                f"pages of {origin[:300]} may not use this server: set VOICE_ORIGINS={origin[:300]} to let them",
                code="origin",
            )
            await JSONResponse(error.body(), error.status)(scope, receive, send)
            return
        granted = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            asked = headers.get("access-control-request-headers", "*")
            granted += [
                (b"access-control-allow-methods", b"GET, POST, PUT, DELETE"),
                (b"access-control-allow-headers", asked.encode("latin-1")),
                (b"access-control-max-age", b"600"),
            ]
            await send({"type": "http.response.start", "status": 204, "headers": granted})
            await send({"type": "http.response.body", "body": b""})
            return

        async def granting(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *granted]}
            await send(message)

        await self._app(scope, receive, granting)
