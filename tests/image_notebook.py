"""A notebook of the booted image: `%pip` in it installs into ComfyUI's overlay, as ComfyUI's user."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import aiohttp

TOKEN = "the-token-of-jupyter"
SECONDS = 120.0


async def run_cell(port: int, code: str) -> tuple[str, str]:
    """Run one cell in a new kernel of JupyterLab at `port`; the answer is its status and all that it printed.

    Raises:
        TimeoutError: it is not done within `SECONDS`.
    """
    base = f"http://127.0.0.1:{port}"
    async with asyncio.timeout(SECONDS), aiohttp.ClientSession(headers={"Authorization": f"token {TOKEN}"}) as session:
        async with session.post(f"{base}/api/kernels", json={"name": "comfyui"}) as answer:
            if answer.status != 201:
                return "no kernel", await answer.text()
            kernel = (await answer.json())["id"]
        try:
            async with session.ws_connect(f"{base}/api/kernels/{kernel}/channels") as channel:
                return await _run(channel, code)
        finally:
            await session.delete(f"{base}/api/kernels/{kernel}")


async def _run(channel: aiohttp.ClientWebSocketResponse, code: str) -> tuple[str, str]:
    asked = uuid.uuid4().hex
    header = {"msg_id": asked, "msg_type": "execute_request", "username": "", "session": asked, "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    await channel.send_json(
        {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content, "buffers": []}
    )
    status, said = "", ""
    while True:
        told: dict[str, Any] = await channel.receive_json()
        if told["parent_header"].get("msg_id") != asked:
            continue
        match told["msg_type"], told["content"]:
            case "stream", {"text": text}:
                said += text
            case "error", {"traceback": lines}:
                said += "\n".join(lines)
            case "execute_reply", {"status": found}:
                status = found
            case "status", {"execution_state": "idle"} if status:
                return status, said
