"""Serves ComfyUI's outputs to the browser, and nothing else, so that nothing in them can run."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import quote

import aiohttp
from aiohttp import web

from hearmeman.page.kinds import type_of

_PASSED = ("Content-Length", "Content-Range", "Accept-Ranges", "Last-Modified")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=300, no-transform",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Outputs:
    """Reads outputs through ComfyUI itself, which alone knows its folder; the page's process opens none of its files."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one file."""
        path = PurePosixPath(request.match_info["path"])
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise web.HTTPNotFound
        # The type is fixed here, not taken from the request: inputs and temporary files stay private.
        query = {
            "filename": path.name,
            "subfolder": "" if str(path.parent) == "." else str(path.parent),
            "type": "output",
        }
        kind = type_of(path.name)
        if "preview" in request.query and kind.startswith("image/"):
            query["preview"] = "webp;70"
        headers = {"Range": request.headers["Range"]} if "Range" in request.headers else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=30)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
                session.get(f"{self.url}/view", params=query, headers=headers) as source,
            ):
                if source.status not in (200, 206):
                    raise web.HTTPNotFound
                return await self._pass_on(request, source, path.name, kind)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise web.HTTPServiceUnavailable(text="ComfyUI does not answer\n") from error

    @staticmethod
    async def _pass_on(
        request: web.Request, source: aiohttp.ClientResponse, name: str, kind: str
    ) -> web.StreamResponse:
        # A preview is a different picture from the file; it must be a picture type.
        told = source.content_type if "preview" in request.query and source.content_type == "image/webp" else kind
        place = "inline" if told else "attachment"
        answer = web.StreamResponse(status=source.status, headers=HEADERS)
        answer.content_type = told or "application/octet-stream"
        answer.headers["Content-Disposition"] = f"{place}; filename*=UTF-8''{quote(name, safe='')}"
        for header in _PASSED:
            if header in source.headers:
                answer.headers[header] = source.headers[header]
        await answer.prepare(request)
        async for piece in source.content.iter_chunked(1 << 16):
            await answer.write(piece)
        await answer.write_eof()
        return answer
