"""The workspace in the booted pod: what one pod's ComfyUI had, the next one's has before it starts, and owns."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from fakes.s3 import S3
from hearmeman.users import COMFYUI
from hearmeman_build.build import Image
from support.pod import Pod

HEARMEMAN = "/opt/env/runtime/bin/hearmeman"
WORKFLOW = "ComfyUI/user/default/workflows/mine.json"


def inside(pod: Pod, *words: str, code: int = 0) -> str:
    """Run a command as root's shell in the pod does, with nothing in its environment; what it printed."""
    done = subprocess.run(pod.inside(HEARMEMAN, *words), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_a_new_pod_starts_with_what_the_last_one_had(image: Image, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with S3() as s3:
        variables = {**s3.environ(), "SYNC_WORKSPACE": "true", "HF_ENDPOINT": "http://127.0.0.1:9"}
        pod = Pod(image, first)
        first.mkdir()
        try:
            pod.start({**variables, "RUNPOD_POD_ID": "first"})
            pod.wait_line("process.started name=comfyui")
            # A shell without a single variable has what the sync was given, its keys and where they are for.
            assert "takes uploads" in inside(pod, "upload", "--test")
            assert "there is no save in s3://runpod/outputs/workspace" in inside(pod, "workspace", "list")
            for path in (WORKFLOW, "ComfyUI/input/face.png"):
                (first / path).parent.mkdir(parents=True, exist_ok=True)
                (first / path).write_text(path)
            pod.wait_line("workspace.saved")
            (first / WORKFLOW).write_text("changed just before the end")
            assert pod.stop() == 0
        finally:
            pod.kill()
        pod = Pod(image, second)
        second.mkdir()
        try:
            pod.start({**variables, "RUNPOD_POD_ID": "second"})
            lines = pod.wait_line("process.started name=comfyui") and pod.log()
            assert lines.index("workspace.restored") < lines.index("process.started name=comfyui")
            assert (second / WORKFLOW).read_text() == "changed just before the end"
            pod.wait_for((second / "ComfyUI/input/face.png").is_file, "the input")
            if os.geteuid() == 0:
                for restored in (second / "ComfyUI/user").rglob("*"):
                    assert restored.stat().st_uid == COMFYUI.uid, restored
            shown = inside(pod, "workspace", "restore", "--dry-run")
            assert "of pod first" in shown
            assert "already here: 2 files" in shown
            (second / "ComfyUI/input/by_hand.png").write_text("x")
            done = json.loads(inside(pod, "workspace", "save", "--json"))
            assert done["added"] == ["input/by_hand.png"]
            assert "nothing is missing" in inside(pod, "nodes", "install", "--dry-run")
            assert pod.stop() == 0
        finally:
            pod.kill()
        assert s3.secret_key not in pod.log()
