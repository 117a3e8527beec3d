"""Bench of the serverless worker against a usual handler: start to first job, and what a job costs beside ComfyUI."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fakes.comfyui import busy, comfyui, command
from fakes.serverless import Job, Serverless
from support.ports import free_port
from support.repository import ROOT
from support.waiting import wait_for

ROUNDS = 5
JOBS = 40
STOPS = 10
COMFYUI_SECONDS = 8.0
"""How long ComfyUI takes to start where both start together; the real one takes longer."""
WORKERS = {
    "ours": ["-P", "-m", "hearmeman.worker", "--workflows", str(ROOT / "workflows")],
    "a usual handler": [str(ROOT / "tests/bench/plain_worker.py")],
}


def tiny(number: int) -> dict[str, Any]:
    """A job whose picture no other job made."""
    image = {"width": 8, "height": 8, "batch_size": 1, "color": number}
    return {
        "workflow": {
            "1": {"class_type": "EmptyImage", "inputs": image},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
        }
    }


@contextmanager
def worker(name: str, platform: Serverless, url: str, folder: Path) -> Iterator[float]:
    """Start one; gives when."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD_", "R2_"))}
    environ |= {"PYTHONPATH": str(ROOT / "python"), "COMFYUI_URL": url, "VOLUME_DIR": str(folder), **platform.environ()}
    environ |= {"RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true", "RUNPOD_SKIP_GPU_CHECK": "true", "HOME": str(folder)}
    began = time.monotonic()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *WORKERS[name]], env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield began
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def done(job: Job, platform: Serverless) -> Job:
    """Wait for a job's answer."""
    platform.result(job)
    assert job.status == "COMPLETED" and job.output["images"], (job.status, job.error)
    return job


def beside_a_running_comfyui(name: str) -> tuple[float, float, list[float]]:
    """Seconds to the first job's take and to its answer, and from take to answer of further jobs, one after the other."""
    with tempfile.TemporaryDirectory() as made, Serverless() as platform:
        folder = Path(made)
        with comfyui(folder / "comfyui", write_seconds=0) as server:
            job = platform.submit(tiny(0))
            with worker(name, platform, server.url, folder) as began:
                first = done(job, platform)
                more = [done(platform.submit(tiny(number)), platform) for number in range(1, JOBS + 1)]
    return first.taken - began, first.answered - began, [job.answered - job.taken for job in more]


def with_a_starting_comfyui(name: str) -> float:
    """Seconds from the start of both to the first answer, beyond what ComfyUI's own start takes."""
    with tempfile.TemporaryDirectory() as made, Serverless() as platform:
        folder, port = Path(made), free_port()
        slow = ["sh", "-c", f'sleep {COMFYUI_SECONDS}; exec "$@"', "sh", *command(folder / "comfyui", port)]
        environ = os.environ | {"STANDIN_WRITE_SECONDS": "0"}
        job = platform.submit(tiny(0))
        with (folder / "comfyui.log").open("wb") as log:
            server = subprocess.Popen(slow, env=environ, stdout=log, stderr=log)
        try:
            with worker(name, platform, f"http://127.0.0.1:{port}", folder) as began:
                return done(job, platform).answered - began - COMFYUI_SECONDS
        finally:
            server.terminate()
            server.wait(30)


def cancelled() -> list[float]:
    """Seconds from the platform's cancel until ComfyUI is at rest, in the middle of jobs that would take a minute."""
    found = []
    with tempfile.TemporaryDirectory() as made, Serverless() as platform:
        folder = Path(made)
        with (
            comfyui(folder / "comfyui", write_seconds=0.1) as server,
            worker("ours", platform, server.url, folder),
        ):
            for number in range(STOPS):
                long = tiny(number)
                long["workflow"]["1"]["inputs"]["batch_size"] = 600
                job = platform.submit(long)
                wait_for(lambda job=job: any(one.get("steps") for one in job.progress), "its run")  # type: ignore[misc]
                began = time.monotonic()
                platform.cancel(job)
                wait_for(lambda: not busy(server.url), "the interrupt")
                found.append(time.monotonic() - began)
    return found


def main() -> int:
    """Print medians and spreads."""
    found: dict[str, list[tuple[float, float, list[float]]]] = {name: [] for name in WORKERS}
    starting: dict[str, list[float]] = {name: [] for name in WORKERS}
    for _ in range(ROUNDS):
        for name in WORKERS:  # By turns, so that both meet the same load.
            found[name].append(beside_a_running_comfyui(name))
            starting[name].append(with_a_starting_comfyui(name))
    for name in WORKERS:
        taken, answered, jobs = zip(*found[name], strict=True)
        each = [seconds * 1000 for round_ in jobs for seconds in round_]
        print(f"{name:16} ComfyUI is there: first job taken {_spread(taken)} s, answered {_spread(answered)} s")
        print(
            f"{'':16} ComfyUI starts beside it: first answer {_spread(starting[name])} s after its {COMFYUI_SECONDS:g} s"
        )
        print(f"{'':16} a tiny job, from its take to its answer, {_spread(each)} ms")
    print(f"{'ours':16} from a cancel until ComfyUI rests {_spread(cancelled())} s")
    return 0


def _spread(values: Iterable[float]) -> str:
    numbers = sorted(values)
    return f"{statistics.median(numbers):.2f} ({numbers[0]:.2f} to {numbers[-1]:.2f})"


if __name__ == "__main__":
    sys.exit(main())
