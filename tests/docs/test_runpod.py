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
from hearmeman_build.host import nix
from hearmeman_pod import command, jobs, ready
from support.repository import ROOT


def pushed() -> list[dict[str, object]]:
    """images.lock.json after a push of each tier."""
    tiers = json.loads(nix("eval", "--impure", "--json", "--expr", f"import {ROOT}/nix/tiers.nix"))
    entry = {"repository": "ghcr.io/someone/hearmeman", "digest": "sha256:" + "a" * 64, "size": 4_950_000_000}
    entry |= {"date": "2026-11-24", "cuda_floor": "12.8"}
    kept = ("defaults", "recommended")
    return [
        {**entry, "tier": name, **{key: tiers[name][key] for key in kept}}
        for name in ("consumer", "prosumer", "datacenter")
    ]


def commands() -> list[str]:
    page = (ROOT / "docs/runpod.md").read_text(encoding="utf-8")
    return re.findall(r"^ {4,}hearmeman-pod (.+)$", page, re.MULTILINE)


def test_every_command_of_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "_PAUSE", 0.02)
    monkeypatch.setattr(jobs, "PAUSE", 0.02)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images.lock.json").write_text(json.dumps(pushed()))
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


def test_the_volumes_that_the_page_names_are_those_that_are_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images.lock.json").write_text(json.dumps(pushed()))
    page = (ROOT / "docs/runpod.md").read_text(encoding="utf-8")
    found = re.findall(r"a volume of (\d+) GB[^\n]*\n\n {4}hearmeman-pod (plan .+)$", page, re.MULTILINE)
    assert len(found) == 6
    environ = {"HOME": str(tmp_path), "HEARMEMAN_ROOT": str(tmp_path)}
    for size, line in found:
        assert command.main([*shlex.split(line), "--json"], environ) == 0
        plan = json.loads(capsys.readouterr().out)
        volume = plan["body"]["mounts"]["persistent"]["size"]
        assert volume == int(size) and volume * 1e9 > plan["model_bytes"], line
        assert all("slow or too large" not in note for note in plan["notes"]), line
