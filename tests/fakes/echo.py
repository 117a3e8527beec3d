"""A service behind the gate that tells what reached it: headers, bytes of an upload, websocket messages."""

from __future__ import annotations

import hashlib
import sys

from aiohttp import web


async def headers(request: web.Request) -> web.Response:
    """All headers, as a list of pairs, and the path as it came."""
    return web.json_response({"path": request.raw_path, "headers": [list(pair) for pair in request.headers.items()]})


async def upload(request: web.Request) -> web.Response:
    """Count and hash the body without keeping it."""
    digest, size = hashlib.sha256(), 0
    async for chunk in request.content.iter_chunked(1 << 18):
        digest.update(chunk)
        size += len(chunk)
    return web.json_response({"size": size, "sha256": digest.hexdigest()})


async def download(request: web.Request) -> web.StreamResponse:
    """As many bytes as asked for."""
    left = int(request.query["size"])
    response = web.StreamResponse(headers={"Content-Length": str(left)})
    await response.prepare(request)
    block = bytes(1 << 18)
    while left > 0:
        await response.write(block[: min(left, len(block))])
        left -= len(block)
    return response


async def websocket(request: web.Request) -> web.WebSocketResponse:
    """Send every message back."""
    socket = web.WebSocketResponse(max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type is web.WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is web.WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


def app() -> web.Application:
    """The service."""
    made = web.Application(client_max_size=1 << 40)
    made.router.add_get("/ws", websocket)
    made.router.add_get("/download", download)
    made.router.add_post("/upload", upload)
    made.router.add_route("*", "/{path:.*}", headers)
    return made


if __name__ == "__main__":
    web.run_app(app(), host=sys.argv[1], port=int(sys.argv[2]), print=lambda *words: None, access_log=None)
