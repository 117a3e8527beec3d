"""A checkout with a pushed image, and the command against the fake RunPod."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.runpod import KEY, RunPod
from hearmeman_pod import command, create, endpoint, endpoint_batch, jobs, ready
from support.repository import ROOT

REFERENCE = "ghcr.io/someone/hearmeman@sha256:" + "a" * 64
ENTRY = {
    "tier": "consumer",
    "repository": "ghcr.io/someone/hearmeman",
    "digest": "sha256:" + "a" * 64,
    "comfyui_rev": "72865f4f27ea",
    "size": 4_950_000_000,
    "date": "2026-11-24",
    "cuda_floor": "12.8",
}


@dataclass
class Operator:
    """Somebody at a terminal."""

    runpod: RunPod
    root: Path
    capsys: pytest.CaptureFixture[str]
    token: str = ""
    has_key: bool = True
    more: dict[str, str] = field(default_factory=dict)
    """Further variables of the machine."""

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Run the command: (exit code, standard output, standard error)."""
        environ = {
            "HOME": str(self.root),
            "HEARMEMAN_ROOT": str(self.root),
            "RUNPOD_API_URL": self.runpod.url,
            "RUNPOD_JOBS_URL": self.runpod.url,
            "HEARMEMAN_PROXY": self.runpod.proxy,
            "ACCESS_TOKEN": self.token,
            **self.more,
        } | ({"RUNPOD_API_KEY": KEY} if self.has_key else {})
        try:
            code = command.main(words, environ)
        except SystemExit as end:
            code = int(end.code or 0)
        said = self.capsys.readouterr()
        assert KEY not in said.out + said.err
        return code, said.out, said.err


@pytest.fixture
def runpod() -> Iterator[RunPod]:
    with RunPod() as server:
        yield server
        assert server.invalid == [], "a request or an answer broke RunPod's schema"


@pytest.fixture
def operator(
    runpod: RunPod, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Operator:
    (tmp_path / "nix").mkdir()
    (tmp_path / "nix/default.nix").write_text((ROOT / "nix/default.nix").read_text())
    (tmp_path / "images.lock.json").write_text(json.dumps([ENTRY]))
    # Real pauses, shorter.
    monkeypatch.setattr(create, "_LOOK_PAUSE", 0.1)
    monkeypatch.setattr(ready, "_PAUSE", 0.02)
    monkeypatch.setattr(endpoint, "_LOOK_PAUSE", 0.02)
    monkeypatch.setattr(endpoint_batch, "PAUSE", 0.02)
    monkeypatch.setattr(jobs, "PAUSE", 0.02)
    return Operator(runpod, tmp_path, capsys)
