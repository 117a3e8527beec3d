"""The worker in a booted image: its own user, the SDK's own environment, jobs from the platform, and its stop."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import Hub
from fakes.serverless import KEY, Serverless
from hearmeman.state_file import read_json
from hearmeman.users import WORKER
from hearmeman_build.build import Image, build_image, prefetch_tier
from support.pod import Pod
from support.waiting import wait_for


@pytest.fixture(scope="module")
def image() -> Image:
    prefetch_tier("smoke-worker")
    return build_image("smoke-worker")


@pytest.fixture
def pod(image: Image, tmp_path: Path) -> Iterator[Pod]:
    made = Pod(image, tmp_path)
    # What RunPod starts: the image's entrypoint with the endpoint's command.
    made.entrypoint = [*made.entrypoint, "worker"]
    try:
        yield made
    finally:
        made.kill()


def test_a_booted_worker_runs_a_job_as_a_user_of_its_own_and_ends_when_told(pod: Pod) -> None:
    with Serverless(poll=0.5) as platform, Hub() as hub:
        skipped = {"RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true", "RUNPOD_SKIP_GPU_CHECK": "true"}
        pod.start(
            {**platform.environ(), **skipped, "HF_ENDPOINT": hub.url, "COMFYUI_ARGS": "--cpu", "STOP_SECONDS": "60"}
        )
        pod.wait_for(lambda: platform.takes > 0, "the first poll")
        job = platform.submit({"workflow": "smoke-image", "set": {"width": 32, "height": 32}})
        assert (pod.volume / "ComfyUI/models/checkpoints/tiny.safetensors").is_file(), (
            "a job was taken before the models"
        )
        pod.wait_for(job.done.is_set, "the job")
        assert (job.status, job.error) == ("COMPLETED", "")
        wait_for(lambda: any(pod.volume.glob(".hearmeman/*/worker.json")), "the report")
        report = next(pod.volume.glob(".hearmeman/*/worker.json"))
        wait_for(lambda: "first job done" in read_json(report)["seconds_since_start"], "the job in it")
        assert report.stat().st_uid == WORKER.uid
        # ComfyUI and its nodes are not given the key with which jobs are taken.
        shown = subprocess.run(pod.inside("/bin/sh", "-c", OTHERS), capture_output=True, text=True, check=True).stdout
        assert "comfyui" in shown and KEY not in shown
        assert KEY not in pod.log()
        assert pod.stop() == 0
    assert not platform.problems


OTHERS = """
for p in /proc/[0-9]*; do
  [ "$(stat -c %u $p)" = 993 ] && echo comfyui && tr '\\0' '\\n' < $p/environ
done; true
"""
