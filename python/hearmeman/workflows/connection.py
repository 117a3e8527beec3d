"""One ComfyUI over HTTP: requests, answers, and errors as sentences. Imports aiohttp: load it late."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Self

import aiohttp

from hearmeman.workflows.answers import AccessError, NotReachableError


class Connection:
    """One ComfyUI at `url`, possibly behind a gate that needs `token`; use it with `async with`."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url.rstrip("/")
        self._token = token
        self.session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        limits = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        self.session = aiohttp.ClientSession(timeout=limits, headers=headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.session is not None:
            await self.session.close()

    @contextlib.asynccontextmanager
    async def call(self, method: str, path: str, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request; returns the answer, whatever its status, unless this is not a ComfyUI we can talk to.

        Raises:
            AccessError, NotReachableError: it does not answer, or not as ComfyUI does.
        """
        assert self.session is not None
        try:
            # A redirect would send the token or the prompt to an address other than the given one.
            async with self.session.request(method, self.url + path, allow_redirects=False, **more) as response:
                self._check(response)
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise NotReachableError(
                f"ComfyUI does not answer at {self.url}: {reason}. It is not started, still starting, or at "
                "another address: check `hearmeman status`, or give its address with --url"
            ) from error

    def _check(self, response: aiohttp.ClientResponse) -> None:
        # 403 is also ComfyUI's answer to a file outside its folders.
        if response.status == 401 or (response.status == 403 and not response.url.path.endswith("/view")):
            meaning = "rejects this ACCESS_TOKEN" if self._token else "requires a token"
            raise AccessError(f"{self.url} {meaning}: set the variable ACCESS_TOKEN to the pod's token")
        if 300 <= response.status < 400:
            place = response.headers.get("Location", "another address")
            raise NotReachableError(f"{self.url} redirects to {place}: give ComfyUI's own address with --url")
        if response.status in (502, 503, 504, 524) or "X-Hearmeman-State" in response.headers:
            raise NotReachableError(f"ComfyUI at {self.url} is starting or gone ({response.status}): try again soon")

    async def get(self, path: str) -> Any:
        """ComfyUI's JSON answer at `path`.

        Raises:
            AccessError, NotReachableError: there is none, or it is not ComfyUI's.
        """
        async with self.call("GET", path) as response:
            text = await response.text(errors="replace")
            try:
                body = json.loads(text) if response.status == 200 else None
            except ValueError:
                body = None
        if not isinstance(body, dict | list):
            raise NotReachableError(
                f"{self.url}{path} answers {response.status}, unlike ComfyUI: check the address in --url"
            )
        return body

    async def get_object(self, path: str) -> dict[str, Any]:
        """ComfyUI's answer at `path`, a JSON object; raises as `get` does."""
        body = await self.get(path)
        if not isinstance(body, dict):
            raise NotReachableError(f"{self.url}{path} does not answer like ComfyUI: check the address in --url")
        return body
