"""Bench of the voice APIs with hibari, against a plain FastAPI handler that calls the same engine in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import aiohttp

from support.memory import processor_seconds, resident
from support.ports import free_port
from support.repository import ROOT
from support.voice import answers
from support.waiting import wait_for

SENTENCE = "The quick brown fox jumps over the lazy dog, and then it sleeps in the warm sun until the evening comes."
ROUNDS = 7
"""Pairs of rounds; the peer goes first in every other one."""
CLIENTS = {1: 40, 8: 100, 32: 200}
"""Clients at once, and how many requests they make together in a round."""


@dataclass(frozen=True)
class Load:
    """One round of requests."""

    per_second: float
    first_p95: float
    """Milliseconds to the first byte."""
    processor: float = 0.0
    """Milliseconds of processor time a request."""


async def load(url: str, clients: int, requests: int) -> Load:
    """Let `clients` at once make `requests` together."""
    firsts: list[float] = []
    left = iter(range(requests))
    # What is measured is the server, and a queue that is full is part of no measure: it is longer than the clients are many.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client() -> None:
            for _ in left:
                began = time.perf_counter()
                async with session.post(f"{url}/v1/audio/speech", json={"input": SENTENCE, "seed": 1}) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.content.readany()
                    firsts.append(time.perf_counter() - began)
                    await answer.read()

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        took = time.perf_counter() - began
    return Load(requests / took, statistics.quantiles(firsts, n=20)[-1] * 1000)


def round_of(url: str, process: int, clients: int, requests: int) -> Load:
    """One round, with the processor time of the server and its children."""
    before = processor_seconds(process)
    found = asyncio.run(load(url, clients, requests))
    return replace(found, processor=(processor_seconds(process) - before) / requests * 1000)


async def first_byte(url: str, text: str) -> float:
    """Median milliseconds to the first byte of audio, one request after another."""
    taken = []
    async with aiohttp.ClientSession() as session:
        for _ in range(9):
            began = time.perf_counter()
            async with session.post(
                f"{url}/audio/speech/stream", json={"input": text, "response_format": "pcm"}
            ) as answer:
                assert answer.status == 200
                await answer.content.readany()
                taken.append(time.perf_counter() - began)
            await idle(session, url)
    return statistics.median(taken) * 1000


async def idle(session: aiohttp.ClientSession, url: str) -> None:
    """Wait until the engine does nothing."""
    while True:
        async with session.get(f"{url}/health") as answer:
            state = await answer.json()
        if not state["in_flight"] and not state["waiting"]:
            return
        await asyncio.sleep(0.002)


async def cancel_to_idle(url: str) -> float:
    """The worst of milliseconds from hanging up in the middle of a long text to an engine that does nothing."""
    taken = []
    async with aiohttp.ClientSession() as session:
        for _ in range(7):
            async with session.post(
                f"{url}/audio/speech/stream", json={"input": SENTENCE * 25, "response_format": "pcm"}
            ) as answer:
                await answer.content.readany()
                answer.close()
            began = time.perf_counter()
            await idle(session, url)
            taken.append(time.perf_counter() - began)
    return max(taken) * 1000


@contextlib.contextmanager
def server(*arguments: str) -> Iterator[tuple[str, int, float]]:
    """Run a server; give its address, its process and the seconds until it answered."""
    port = free_port()
    command = [sys.executable, *(word.format(port=port) for word in arguments)]
    with tempfile.TemporaryDirectory() as folder:
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT / 'python'}:{ROOT / 'tests'}", "HOME": folder}
        began = time.perf_counter()
        with subprocess.Popen(command, env=env, cwd=folder, stderr=subprocess.DEVNULL) as process:
            url = f"http://127.0.0.1:{port}"
            try:
                wait_for(lambda: answers(f"{url}/health") or answers(f"{url}/ready"), "it answers")
                took = time.perf_counter() - began
                wait_for(lambda: answers(f"{url}/ready"), "it is ready")
                yield url, process.pid, took
            finally:
                process.terminate()
                process.wait(30)


def main() -> int:
    """Print everything; 1 where a goal is missed."""
    missed = []
    ours_command = ("-m", "hearmeman_voice", "chatterbox", "--engine", "hibari", "--port", "{port}", "--queue", "64")
    plain_command = (str(ROOT / "tests/bench/plain_speech.py"), "{port}")
    with server(*ours_command) as (ours, process, start), server(*plain_command) as (plain, plain_process, plain_start):
        print(f"start to /health: {start:.1f} s (plain FastAPI handler, with its model: {plain_start:.1f} s)")
        server_mb, engine_mb = resident(process)
        print(
            f"memory: the server {server_mb:.0f} MB, which is all once the engine is put away, and hibari's process "
            f"{engine_mb:.0f} MB (plain {resident(plain_process)[0]:.0f} MB)"
        )
        for clients, requests in CLIENTS.items():
            pairs = []
            for number in range(ROUNDS):
                sides = [(ours, process), (plain, plain_process)]
                rounds = [round_of(*side, clients, requests) for side in sides[:: 1 if number % 2 else -1]]
                pairs.append(rounds if number % 2 else rounds[::-1])
            ratios = sorted(us.per_second / them.per_second for us, them in pairs)
            work = statistics.median(us.processor / them.processor for us, them in pairs)
            us, them = (
                [statistics.median(getattr(pair[side], name) for pair in pairs) for name in ("per_second", "first_p95")]
                for side in (0, 1)
            )
            ratio = statistics.median(ratios)
            print(
                f"{clients:2} clients: {us[0]:6.1f} requests/s, first byte p95 {us[1]:6.0f} ms; "
                f"plain {them[0]:6.1f}, {them[1]:6.0f} ms; {ratio:.2f} times as many ({ratios[0]:.2f} to {ratios[-1]:.2f}), "
                f"{work:.2f} times the processor time"
            )
            if ratio < (0.9 if clients == 1 else 1.0):
                missed.append(f"{clients} clients: {ratio:.2f}")
        short = asyncio.run(first_byte(ours, SENTENCE[:100]))
        texts = {"with": (SENTENCE + " ") * 19, "without": (SENTENCE[:-1].replace(",", "") + " ") * 20}
        for name, text in texts.items():
            took = asyncio.run(first_byte(ours, text[:2000]))
            print(
                f"first byte of 2,000 characters {name} punctuation: {took:.0f} ms, {took / short:.2f} times that of 100 ({short:.0f} ms)"
            )
            if took > 1.5 * short:
                missed.append(f"first byte {name} punctuation")
        cancelled = asyncio.run(cancel_to_idle(ours))
        print(f"hung up to engine idle: {cancelled:.0f} ms at worst")
        if cancelled > 1000:
            missed.append("cancel to idle")
    for what in missed:
        print(f"MISSED: {what}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
