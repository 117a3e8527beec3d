"""RAM is looked at before a load that would end ComfyUI without a word."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from fakes.comfyui import comfyui
from hearmeman.cli import main
from hearmeman.workflows import library, ram, schema
from support.repository import ROOT

FOLDER = ROOT / "workflows"
WORKFLOWS = library.load(FOLDER)


def with_need(folder: Path, gigabytes: float) -> Path:
    folder.mkdir()
    for name in (schema.FILE, "smoke-image.json"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    entry = f'name = "big"\ntitle = "t"\nfile = "smoke-image.json"\nmodels = []\nram_gb = {gigabytes}\n'
    (folder / "index.toml").write_text(f"[[workflow]]\n{entry}")
    return folder


def test_what_does_not_fit_into_ram_is_not_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    with comfyui(tmp_path / "comfyui") as server:
        large, small = with_need(tmp_path / "large", 1e6), with_need(tmp_path / "small", 0.001)
        there = ["--url", server.url]
        assert main(["workflows", "run", "big", "--dir", str(large), *there], {}) == 1
        assert "needs 1e+06 GB of RAM free" in capsys.readouterr().err
        out = ["--out", str(tmp_path / "out")]
        assert main(["workflows", "batch", "big", str(rows), "--dir", str(large), *there, *out], {}) == 1
        with urllib.request.urlopen(f"{server.url}/history") as answer:
            assert json.load(answer) == {}
        assert main(["workflows", "run", "big", "--dir", str(small), *there], {}) == 0


def test_the_containers_limit_counts_where_it_is_less_than_the_hosts_ram() -> None:
    portrait = WORKFLOWS["flashportrait"]
    ram.check(portrait, 200e9, None)
    with pytest.raises(ram.MemoryTooSmallError, match="needs 72 GB of RAM free .* and 48 GB are"):
        ram.check(portrait, 200e9, 48e9)


def test_the_pods_memory_mode_is_the_nodes_mode() -> None:
    portrait = WORKFLOWS["flashportrait"]
    modes = {"full": "default", "model_cpu_offload": "model_cpu_offload_and_qfloat8", "auto": "default"}
    for mode, expected in {**modes, "sequential_cpu_offload": "sequential_cpu_offload"}.items():
        options = library.chosen(portrait, [], {"GPU_MEMORY_MODE": mode})
        graph = library.choose(library.graph(portrait), portrait, options)
        assert graph["loader"]["inputs"]["GPU_memory_mode"] == expected
