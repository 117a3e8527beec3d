"""A pod's run folder as boot and the processes leave it, and the door's real server before it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from hearmeman.door.server import Door
from support.waiting import PATIENCE

PORTS = [
    {
        "service": "ComfyUI",
        "port": 8188,
        "guard": "",
        "public": True,
        "words": "8188 ComfyUI: ANYONE",
        "address": "https://p1-8188.proxy.runpod.net/",
    },
    {
        "service": "SSH",
        "port": 22,
        "guard": "keys",
        "public": True,
        "words": "22 SSH: anyone with a key in PUBLIC_KEY",
        "address": "ssh root@10.0.0.1 -p 22001",
    },
]


def run_folder(root: Path, comfyui_url: str, **more: Any) -> Path:
    """Write what a booted pod has written; `more` changes the boot record."""
    run_dir, state = root / "run", root / "state"
    for folder in (run_dir / "keep", run_dir / "gate", state / "logs"):
        folder.mkdir(parents=True)
    (run_dir / "logs").symlink_to(state / "logs")
    boot = {
        "started": time.time() - 90,
        "image": {"tier": "consumer", "comfyui_rev": "0123456789abcdef"},
        "machine": {"gpus": []},
        "volume": {"path": str(root), "is_mount": True},
        "state_dir": str(state),
        "comfyui_url": comfyui_url,
        "ports": PORTS,
        "doors": [port["words"] for port in PORTS],
        "pod": "p1",
        "output": f"{root}/ComfyUI/output",
        "phases": {"settings": 0.2, "prepared": 0.4},
        "warnings": ["the volume is 97% full: delete files"],
        "failed": {},
        **more,
    }
    (run_dir / "boot.json").write_text(json.dumps(boot))
    return run_dir


@contextlib.contextmanager
def served(run_dir: Path, watch: bool = True) -> Iterator[tuple[str, Door]]:
    """The door's server on a port of its own, in a thread of its own; without `watch` it does not look at ComfyUI."""
    door = Door(run_dir, json.loads((run_dir / "boot.json").read_text()), None)
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(door.app(), access_log=None, shutdown_timeout=1)
    ready: list[int] = []

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        if watch:
            tasks.append(asyncio.create_task(door.comfyui.watch()))
        ready.append(runner.addresses[0][1])

    tasks: list[asyncio.Task[None]] = []
    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{ready[0]}", door
    finally:

        async def stop() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await runner.cleanup()

        asyncio.run_coroutine_threadsafe(stop(), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()
