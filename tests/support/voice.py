"""Voice APIs for tests: real processes with hibari, and the real apps before an engine that a test holds in its hand."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import uvicorn

from support.ports import free_port
from support.repository import ROOT
from support.waiting import PATIENCE, wait_for

if TYPE_CHECKING:
    import openai

CLIENT = httpx2.Client(timeout=PATIENCE, verify=False, limits=httpx2.Limits(max_keepalive_connections=0))
"""One for all: each would read the machine's certificates again, and a kept connection may be closed as it is used."""

RATE = 24000
SPEAKERS = ("calm_female", "female", "male")


def tone(path: Path, seconds: float = 6.0) -> Path:
    """Write a mono WAV that is no silence."""
    samples = np.sin(np.arange(int(seconds * RATE)) * 0.05) * 8000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def openai_client(url: str, retries: int = 0) -> openai.OpenAI:
    """Give OpenAI's own client of an API. It is loaded here, since it takes longer than most tests."""
    import openai

    return openai.OpenAI(base_url=f"{url}/v1", api_key="any", timeout=PATIENCE, max_retries=retries)


def answers(url: str, status: int = 200) -> bool:
    """Say whether an address answers with this status."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == status)
    except urllib.error.HTTPError as error:
        return error.code == status
    except OSError:
        return False


@contextlib.contextmanager
def voice_process(
    api: str, folder: Path, within: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run `python -m hearmeman_voice` with hibari in `folder`; give its address once it is ready.

    `within` is a command that runs another, such as bwrap's.
    """
    with running(api, folder, within, environ) as (url, process):
        yield url
        assert process.poll() is None, f"the server has ended:\n{(folder / f'{api}.log').read_text()}"


@contextlib.contextmanager
def running(
    api: str,
    folder: Path,
    within: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Do the same for a test that ends it; give its process too. `environ` is for this server alone."""
    builtin = folder / "builtin"
    builtin.mkdir(parents=True, exist_ok=True)
    for name in SPEAKERS:
        tone(builtin / f"{name}.wav")
    port = port or free_port()
    command = [*within, sys.executable, "-m", "hearmeman_voice", api, "--engine", "hibari"]
    command += ["--host", host, "--port", str(port)]
    for name, place in (
        ("voices", "voices"),
        ("builtin-voices", "builtin"),
        ("models", "models"),
        ("output", "output"),
    ):
        command += [f"--{name}", str(folder / place)]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), "HOME": str(folder), **(environ or {})}
    log = folder / f"{api}.log"
    with log.open("wb") as out, subprocess.Popen(command, env=env, stdout=out, stderr=out, cwd=folder) as process:
        url = f"http://{host}:{port}"
        try:
            wait_for(lambda: process.poll() is not None or answers(f"{url}/ready"), f"{api} is ready")
            assert process.poll() is None, log.read_text()
            yield url, process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def in_thread(app: Any) -> Iterator[str]:
    """Serve an app over HTTP on a thread; give its address."""
    port = free_port()
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started, "the server is up")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
