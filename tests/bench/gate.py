"""Bench of the gate: what a request costs through it, against the same service asked directly, in the same run."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from hearmeman_build.build import build_image, prefetch_tier
from support.gated import TOKEN, GatedPod

ROUNDS = 5
REQUESTS = 400
BYTES = 512 << 20
MESSAGES = 400


async def latency(session: aiohttp.ClientSession, url: str) -> float:
    """Median milliseconds of one small request, one after another on a kept connection."""
    taken = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        async with session.get(f"{url}/x") as answer:
            await answer.read()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


async def upload(session: aiohttp.ClientSession, url: str) -> float:
    """MB/s of one large upload."""
    block = bytes(1 << 20)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(BYTES >> 20):
            yield block

    began = time.perf_counter()
    async with session.post(f"{url}/upload", data=body()) as answer:
        assert (await answer.json())["size"] == BYTES
    return BYTES / 1e6 / (time.perf_counter() - began)


async def download(session: aiohttp.ClientSession, url: str) -> float:
    """MB/s of one large download."""
    got, began = 0, time.perf_counter()
    async with session.get(f"{url}/download?size={BYTES}") as answer:
        async for part in answer.content.iter_any():
            got += len(part)
    assert got == BYTES
    return BYTES / 1e6 / (time.perf_counter() - began)


async def websocket(session: aiohttp.ClientSession, url: str) -> float:
    """Median milliseconds of one message there and back."""
    taken = []
    async with session.ws_connect(f"{url}/ws") as ws:
        for _ in range(MESSAGES):
            began = time.perf_counter()
            await ws.send_bytes(b"x" * 4096)
            await ws.receive()
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


MEASURES = (
    ("small request", "ms", latency),
    ("upload", "MB/s", upload),
    ("download", "MB/s", download),
    ("websocket message", "ms", websocket),
)


async def measure(gate: str, direct: str) -> None:
    """Ask both in turn, `ROUNDS` times, and print medians, spread and their ratio."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=1)) as session:
        for name, unit, one in MEASURES:
            rows: dict[str, list[float]] = {"direct": [], "gate": []}
            for _ in range(ROUNDS):
                for way, url in (("direct", direct), ("gate", gate)):
                    rows[way].append(await one(session, url))
            shown = {way: statistics.median(values) for way, values in rows.items()}
            spread = {way: f"{min(values):.2f} to {max(values):.2f}" for way, values in rows.items()}
            print(
                f"{name:18} direct {shown['direct']:9.2f} {unit} ({spread['direct']})   "
                f"gate {shown['gate']:9.2f} {unit} ({spread['gate']})   ratio {shown['gate'] / shown['direct']:.2f}"
            )


def main() -> int:
    """Boot a pod with an echo service behind the gate and measure both ways to it."""
    prefetch_tier("smoke")
    with tempfile.TemporaryDirectory() as folder:
        pod = GatedPod(build_image("smoke"), Path(folder))
        try:
            variables = {k: v for k, v in pod.variables.items() if k not in ("JUPYTER_PASSWORD", "PUBLIC_KEY")}
            pod.start(variables)
            pod.wait_line("pod.ready")
            time.sleep(2)
            urls = [f"http://127.0.0.1:{pod.ports[name]}" for name in ("XTTS", "XTTS_INNER")]
            asyncio.run(measure(*urls))
            pod.stop()
        finally:
            pod.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
