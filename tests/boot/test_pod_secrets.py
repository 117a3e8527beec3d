"""Secrets in the booted pod: a process started as ComfyUI is finds none, wherever it looks."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from fakes import prober
from hearmeman_build.build import Image
from support.gated import JUPYTER_TOKEN, TOKEN, GatedPod

PLANTED = {
    "HF_TOKEN": "hf_planted-in-this-pod",
    "CIVITAI_API_KEY": "civitai-planted-in-this-pod",
    "R2_ACCESS_KEY_ID": "r2-id-planted-in-this-pod",
    "R2_SECRET_ACCESS_KEY": "r2-key-planted-in-this-pod",
    "RUNPOD_API_KEY": "rpa_planted-in-this-pod",
    "SOME_OTHER_TOKEN": "unknown-planted-in-this-pod",
    "ACCESS_TOKEN": TOKEN,
    "JUPYTER_PASSWORD": JUPYTER_TOKEN,
}


def test_a_process_started_as_comfyui_is_finds_no_secret(jupyter_image: Image, tmp_path: Path) -> None:
    pod = GatedPod(jupyter_image, tmp_path)
    shutil.copy(prober.__file__, pod.volume / "prober.py")
    pod.own_image({"comfyui_main": "/workspace/prober.py"})
    probe = pod.volume / "probe"
    try:
        sync = {"ENABLE_R2_SYNC": "true", "R2_ENDPOINT": "http://127.0.0.1:9"}
        ends = {"IDLE_STOP_MINUTES": "600", "RUNPOD_POD_ID": "p1", "RUNPOD_API_URL": "http://127.0.0.1:9"}
        pod.start({**pod.variables, **PLANTED, **sync, **ends})
        pod.wait_for((probe / "argv").exists, "the prober")
        pod.wait_line("Jupyter Server")
        pod.wait_line("process.started name=sshd")
        pod.wait_line("idle.watching")
        time.sleep(1)
        # In hex, so that the list of what to look for is not found itself.
        needles = {name: value.encode().hex() for name, value in PLANTED.items()}
        needles["the host key"] = b"OPENSSH PRIVATE KEY-----\nb3B".hex()
        (probe / "go.tmp").write_text(json.dumps(needles))
        (probe / "go.tmp").rename(probe / "go")
        pod.wait_for((probe / "seen.json").exists, "what the prober saw")
        seen = json.loads((probe / "seen.json").read_text())
        log = pod.log()
        pod.stop()
    finally:
        pod.kill()
    assert seen["files"] > 5000
    if os.geteuid() != 0:
        # Without users of their own there is nothing to hide behind; then boot must say so.
        assert "processes cannot be given users of their own" in log
        return
    assert seen["found"] == []
    assert seen["environments"] >= 1
    assert seen["doors"] == []
    assert "CapBnd:\t0000000000000000" in seen["status"]
    for value in PLANTED.values():
        assert value not in log
    assert "SOME_OTHER_TOKEN: they look like secrets" in log
