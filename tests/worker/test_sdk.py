"""The worker under RunPod's own SDK, against a platform and a ComfyUI on loopback."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes.comfyui import ComfyUI, comfyui
from fakes.s3 import S3
from fakes.serverless import KEY, Serverless
from hearmeman.state_file import read_json
from support.ports import free_port
from support.repository import ROOT
from support.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.xdist_group("worker")


@dataclass
class Running:
    """A worker."""

    platform: Serverless
    comfyui: ComfyUI
    bucket: S3
    process: subprocess.Popen[bytes]
    log: Path
    report: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")


@contextmanager
def worker(platform: Serverless, server: ComfyUI, folder: Path, more: dict[str, str], *words: str) -> Iterator[Any]:
    folder.mkdir(parents=True, exist_ok=True)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD_", "R2_"))}
    environ |= {"PYTHONPATH": str(ROOT / "python"), "COMFYUI_URL": server.url, "VOLUME_DIR": str(folder)}
    environ |= {"RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true", "RUNPOD_SKIP_GPU_CHECK": "true", "PYTHONUNBUFFERED": "1"}
    environ |= {"HOME": str(folder), "MODEL_CATALOGUE": str(ROOT / "tests/smoke/catalogue.toml")} | more
    command = [sys.executable, "-P", "-m", "hearmeman.worker", "--workflows", str(ROOT / "workflows")]
    command += ["--report", str(folder / "worker.json"), *words]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        # With the SDK's process that pings, which outlives a worker that is killed.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("worker")
    with Serverless() as platform, comfyui(folder / "comfyui", write_seconds=0.1) as server, S3() as bucket:
        more = platform.environ() | bucket.environ() | {"WORKER_WARMUP": "smoke-audio"}
        with worker(platform, server, folder / "worker", more) as process:
            started = Running(platform, server, bucket, process, folder / "worker/log", folder / "worker/worker.json")
            wait_for(lambda: platform.takes or process.poll() is not None, "the first poll")
            assert process.poll() is None, started.text()
            yield started
    assert not platform.problems


def test_a_job_runs_and_its_progress_can_be_put_in_order(running: Running) -> None:
    job = running.platform.submit({"workflow": "smoke-image", "set": {"width": 64, "height": 48, "color": "#112233"}})
    running.platform.result(job)
    assert (job.status, job.error) == ("COMPLETED", "")
    image = job.output["images"][0]
    assert image["type"] == "base64" and base64.b64decode(image["data"]).startswith(b"\x89PNG")
    # Each is sent from a thread of its own; the last may come after the answer.
    wait_for(lambda: {one["state"] for one in job.progress} >= {"preparing", "running", "collecting"}, "all progress")
    steps = sorted(job.progress, key=lambda one: one["number"])
    assert [one["number"] for one in steps] == list(range(1, len(steps) + 1))
    assert [steps[0]["state"], steps[-1]["state"]] == ["preparing", "collecting"]
    assert any(one.get("class_type") == "SaveImage" and one.get("steps") for one in steps)


def test_a_cancelled_job_is_interrupted_in_comfyui_and_the_next_one_runs(running: Running) -> None:
    long = {"workflow": "smoke-image", "set": {"width": 8, "height": 8, "count": 4000, "color": 3}}
    job = running.platform.submit(long)
    wait_for(lambda: any(one.get("state") == "running" for one in job.progress), "its run")
    assert queue(running.comfyui)["queue_running"]
    running.platform.cancel(job)
    # 4,000 files take seven minutes; it is gone long before.
    wait_for(lambda: not queue(running.comfyui)["queue_running"], "the interrupt")
    after = running.platform.submit({"workflow": "smoke-image", "set": {"width": 8, "height": 8, "color": 4}})
    assert running.platform.result(after).status == "COMPLETED"


def test_an_answer_above_the_limit_goes_to_the_bucket(running: Running) -> None:
    job = running.platform.submit({"workflow": "smoke-audio", "set": {"duration": 1, "rate": 8000}}, sync=True)
    assert running.platform.result(job).output["audio"][0]["type"] == "base64"
    job = running.platform.submit({"workflow": heavy(16_000_000)}, sync=True)
    running.platform.result(job)
    assert job.status == "COMPLETED" and not job.refused, job.error
    url = job.output["images"][0]["data"]
    assert job.output["images"][0]["type"] == "s3_url" and running.bucket.secret_key not in url
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        assert len(answer.read()) > 15_000_000


def test_an_error_is_the_answer_and_says_which_node_and_what_to_lower(running: Running) -> None:
    large = {"workflow": "smoke-image", "set": {"width": 16384, "height": 16384, "count": 64}}
    job = running.platform.result(running.platform.submit(large))
    assert job.status == "FAILED"
    assert "node 1 (EmptyImage)" in job.error and "MemoryError" in job.error
    assert re.search(r"lower .*width \(now 16384\)", job.error)


def test_a_worker_that_was_frozen_while_it_waited_takes_the_next_job(running: Running) -> None:
    pids = [running.process.pid, running.comfyui.process.pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1)  # What was on its way comes in.
    before = running.platform.takes
    time.sleep(running.platform.poll + 1)
    assert running.platform.takes == before
    # A snapshot that is restored finds none of its connections alive.
    assert running.platform.drop() > 0
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    job = running.platform.submit({"workflow": "smoke-image", "set": {"width": 8, "height": 8, "color": 77}})
    assert running.platform.result(job).status == "COMPLETED"


def test_between_jobs_the_worker_holds_no_connection_to_comfyui(running: Running) -> None:
    job = running.platform.submit({"workflow": "smoke-image", "set": {"width": 8, "height": 8, "color": 78}})
    running.platform.result(job)
    wait_for(lambda: not connections(running.process.pid, running.comfyui.port), "no connection")


def test_the_log_holds_phases_and_neither_base64_nor_the_key(running: Running) -> None:
    job = running.platform.submit({"workflow": "smoke-image", "set": {"width": 512, "height": 512, "color": 79}})
    data = running.platform.result(job).output["images"][0]["data"]
    wait_for(lambda: "first job done" in read_json(running.report)["seconds_since_start"], "the report")
    phases = read_json(running.report)["seconds_since_start"]
    assert list(phases)[:4] == ["sdk", "comfyui", "warm-up", "ready"]
    assert list(phases.values()) == sorted(phases.values())
    text = running.text()
    assert "phase=sdk" in text and data[:60] not in text and KEY not in text
    assert not re.search(r"[A-Za-z0-9+/=]{200}", text)
    wait_for(lambda: running.platform.pings, "a ping")


def test_sigterm_ends_the_worker_after_the_job_that_runs(tmp_path: Path, running: Running) -> None:
    with Serverless(poll=0.5) as platform, worker(platform, running.comfyui, tmp_path / "w", platform.environ()) as one:
        job = platform.submit({"workflow": "smoke-image", "set": {"width": 8, "height": 8, "count": 5, "color": 80}})
        wait_for(lambda: any(step.get("state") == "running" for step in job.progress) or job.done.is_set(), "its run")
        one.send_signal(signal.SIGTERM)
        assert platform.result(job).status == "COMPLETED"
        assert one.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("more", "words", "check", "says"),
    [
        (
            {"MODELS": "smoke"},
            ("--python", sys.executable),
            "models_are_verified",
            "1 model files are missing or were not verified, such as",
        ),
        ({"WORKER_WARMUP": "smoke-imag"}, (), "comfyui_is_warm", "no workflow is named smoke-imag"),
    ],
)
def test_a_worker_that_is_not_fit_says_why_in_a_sentence_and_takes_no_job(
    tmp_path: Path, running: Running, more: dict[str, str], words: tuple[str, ...], check: str, says: str
) -> None:
    with Serverless(poll=0.5) as platform:
        with worker(platform, running.comfyui, tmp_path / "w", platform.environ() | more, *words) as process:
            assert process.wait(PATIENCE) == 1
        ((failed, why),) = platform.unhealthy
        assert failed == check and why.startswith("NotFitError: ") and says in why, why
        log = (tmp_path / "w/log").read_text()
        assert says in log and "Traceback" not in log
        assert not platform.takes and not platform.problems


def test_its_local_api_runs_a_job(tmp_path: Path, running: Running) -> None:
    port = free_port()
    words = ("--rp_serve_api", "--rp_api_port", str(port), "--rp_api_host", "127.0.0.1")
    with worker(Serverless(), running.comfyui, tmp_path / "w", {}, *words) as process:
        wait_for(lambda: answers(port) or process.poll() is not None, "the API")
        body = json.dumps({"input": {"workflow": "smoke-image", "set": {"width": 8, "height": 8}}}).encode()
        url, kind = f"http://127.0.0.1:{port}/runsync", {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, body, kind), timeout=PATIENCE) as answer:
            found = json.load(answer)
    assert found["status"] == "COMPLETED" and found["output"]["images"][0]["type"] == "base64"


def heavy(size: int) -> dict[str, Any]:
    """A graph whose picture is large: ComfyUI writes the graph into it."""
    image = {"width": 8, "height": 8, "batch_size": 1, "color": 5}
    return {
        "1": {"class_type": "EmptyImage", "inputs": image, "_meta": {"title": "x" * size}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "heavy"}},
    }


def queue(server: ComfyUI) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server.url}/queue", timeout=PATIENCE) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/docs", timeout=5):
            return True
    except OSError:
        return False


def connections(pid: int, port: int) -> list[str]:
    """The open connections of a process to a port."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(str(entry.readlink()))
        except OSError:
            continue
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return [line[2] for line in lines if f"socket:[{line[9]}]" in inodes and int(line[2].split(":")[1], 16) == port]
