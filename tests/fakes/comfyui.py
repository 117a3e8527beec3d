"""Starts the stand-in ComfyUI on a free port as its own process and ends it again."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.ports import free_port
from support.waiting import wait_for

MAIN = Path(__file__).resolve().parent.parent / "standin" / "main.py"


@dataclass(frozen=True)
class ComfyUI:
    """A running stand-in."""

    url: str
    port: int
    base: Path
    output: Path
    process: subprocess.Popen[bytes]


def command(base: Path, port: int, *more: str, main: Path = MAIN) -> list[str]:
    """The command line that starts it like the pod does, its folders made."""
    for folder in ("models", "user", "output"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    config = base / "extra_model_paths.yaml"
    config.write_text("", encoding="utf-8")
    places = ["--base-directory", str(base), "--models-directory", str(base / "models")]
    places += ["--user-directory", str(base / "user"), "--database-url", f"sqlite:///{base}/user/comfyui.db"]
    places += ["--extra-model-paths-config", str(config)]
    net = ["--listen", "127.0.0.1", "--port", str(port)]
    return [sys.executable, str(main), *net, *places, "--disable-auto-launch", "--log-stdout", "--cpu", *more]


@contextlib.contextmanager
def comfyui(base: Path, write_seconds: float = 0.05, more: Sequence[str] = (), main: Path = MAIN) -> Iterator[ComfyUI]:
    """A stand-in under `base` that answers; it is ended on the way out."""
    port = free_port()
    environ = os.environ | {"STANDIN_WRITE_SECONDS": str(write_seconds), "PYTHONDONTWRITEBYTECODE": "1"}
    log = base / "comfyui.log"
    base.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            command(base, port, *more, main=main), env=environ, stdout=out, stderr=subprocess.STDOUT
        )
    running = ComfyUI(f"http://127.0.0.1:{port}", port, base, base / "output", process)
    try:
        _wait(running, log)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def busy(url: str) -> bool:
    """Tell whether ComfyUI runs a prompt, or has one to run."""
    with urllib.request.urlopen(f"{url}/queue", timeout=30) as answer:
        queue = json.load(answer)
    return bool(queue["queue_running"] or queue["queue_pending"])


def _wait(running: ComfyUI, log: Path) -> None:
    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{running.url}/system_stats", timeout=10):
            return True
        return False

    wait_for(answers, "the stand-in", over=lambda: running.process.poll() is not None, said=log.read_text)
