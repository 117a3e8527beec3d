"""docs/runpod.md: every command on the page runs, in its order, against RunPod's API on loopback."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from fakes.comfyui import comfyui
from fakes.runpod import KEY, RunPod
from hearmeman_pod import command, jobs, ready
from support.repository import ROOT


def commands() -> list[str]:
    page = (ROOT / "docs/runpod.md").read_text(encoding="utf-8")
    return re.findall(r"^ {4,}hearmeman-pod (.+)$", page, re.MULTILINE)


def test_every_command_of_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "_PAUSE", 0.02)
    monkeypatch.setattr(jobs, "PAUSE", 0.02)
    monkeypatch.chdir(tmp_path)
    entry = {"tier": "consumer", "repository": "ghcr.io/someone/hearmeman", "digest": "sha256:" + "a" * 64}
    entry |= {"size": 4_950_000_000, "date": "2026-11-24", "cuda_floor": "12.8"}  # type: ignore[dict-item]
    (tmp_path / "images.lock.json").write_text(json.dumps([entry]))
    shutil.copytree(ROOT / "workflows", tmp_path / "workflows")
    (tmp_path / "rows.csv").write_text("width,height\n64,64\n96,64\n")
    monkeypatch.chdir(tmp_path)
    found = commands()
    assert len(found) > 15
    with RunPod(cost=0.69) as runpod, comfyui(tmp_path / "comfyui") as server:
        runpod.comfyui = server.url
        environ = {
            "HOME": str(tmp_path),
            "HEARMEMAN_ROOT": str(tmp_path),
            "RUNPOD_API_URL": runpod.url,
            "RUNPOD_JOBS_URL": runpod.url,
            "HEARMEMAN_PROXY": runpod.proxy,
            "RUNPOD_API_KEY": KEY,
        }
        failed = [line for line in found if command.main(shlex.split(line), environ) != 0]
        assert failed == []
        assert runpod.live == [], "the page leaves a pod running"
        assert runpod.invalid == []
