"""A real pod whose time is over ends itself by RunPod's API, and its people can see that."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.runpod import KEY, RunPod
from hearmeman_build.build import Image
from support.pod import Pod

BODY = {"name": "p", "image": "r/i@sha256:" + "0" * 64, "gpu": {"id": "NVIDIA L40S", "count": 1}}


@pytest.mark.xdist_group("idle-pod")
def test_a_pod_whose_time_is_over_ends_itself_and_leaves_no_count_on_the_volume(image: Image, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    with RunPod() as runpod:
        name = runpod.made(BODY, "RUNNING")
        variables = {"RUNPOD_POD_ID": name, "RUNPOD_API_KEY": KEY, "RUNPOD_API_URL": runpod.url, "MAX_MINUTES": "0.02"}
        pod = Pod(image, volume)
        try:
            pod.start({"COMFYUI_HOST": "127.0.0.1", "STATUS_HOST": "127.0.0.1", **variables})
            pod.wait_for(lambda: runpod.pods[name].status == "EXITED", "the stop")
            pod.wait_line("idle.warning")
            pod.wait_line("idle.stopping action=stop")
            log = pod.log()
            pod.stop()
        finally:
            pod.kill()
        assert KEY not in log
        assert not list(volume.rglob("clock.json")), "a resumed pod would find an old count"
        assert runpod.invalid == []
        assert runpod.requests[-1][2] == {"action": "stop"}
