"""`hearmeman status` for people: it fits 80 columns, says sizes and ages in units, and loses nothing."""

from typing import Any

import pytest

from hearmeman.status.command import lines
from hearmeman.status.timeline import timeline

FOUND: dict[str, Any] = {
    "boot": {
        "image": {"tier": "consumer", "comfyui_rev": "0123456789abcdef"},
        "tuning": {"tier": "consumer", "memory_mode": "model_cpu_offload", "arguments": ["--disable-mmap"] * 8},
        "doors": ["8188 ComfyUI: ANYONE who knows the address; set ACCESS_TOKEN to require a token", "22 SSH: keys"],
    },
    "phases": {"settings": 0.1},
    "ready": False,
    "ready_why": "ComfyUI does not answer",
    "ready_pid": 0,
    "processes": [
        {
            "name": "comfyui",
            "what": "running, pid 7, up 9 s",
            "statename": "RUNNING",
            "keep": {"pid": 7, "starts": 1, "since": 991.0},
        }
    ],
    "not_working": {"xtts": "no such engine"},
    "failed_nodes": {},
    "models": {
        "state": "fetching",
        "files_present": 1,
        "files_total": 3,
        "files_failed": 1,
        "bytes_done": 2_500_000_000,
        "bytes_total": 17_000_000_000,
        "bytes_per_second": 112_000_000,
        "seconds_left": 129.0,
        "updated": 995.0,
    },
    "sync": {
        "uploaded_files": 4,
        "uploaded_bytes": 8_000_000,
        "backlog_files": 2,
        "backlog_bytes": 1500,
        "updated": 700,
    },
    "machine": {"findings": [{"name": "gpu", "ok": False, "what": "multiplying matrices: no answer within 20 s"}]},
    "warnings": ["the volume is 97% full: delete files"],
    "problem": "",
}


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_it_fits_and_says_what_matters(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = lines(FOUND, now=1000.0)
    assert max(map(len, shown)) <= columns
    assert [line.split()[0] for line in shown[:2]] == ["pod", "error"], "how it is, then what is wrong"
    text = " ".join(" ".join(shown).split())
    for part in (
        "pod Starting: ComfyUI is loading, 9 s so far",
        "error xtts does not work: no such engine",
        "start settings 0.1 s",
        "fetch fetching: 1 of 3 files, 2.5 GB of 17 GB at 112 MB/s, 2 min 9 s left, 1 failed (5 s ago)",
        "upload 4 files sent, 8 MB; 2 waiting, 1.5 kB (5 min ago)",
        "machine gpu UNSOUND: multiplying matrices: no answer within 20 s",
        "warning the volume is 97% full; delete files",
    ):
        assert part in text


def test_a_wide_terminal_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert any(line.endswith("set ACCESS_TOKEN to require a token") for line in lines(FOUND))


def test_what_takes_no_time_is_named_with_what_comes_next() -> None:
    phases = {"settings": 0.2, "gpu": 0.21, "prepared": 0.25, "comfyui_exec": 0.5, "comfyui_ready": 9.5}
    assert [(step.what, round(step.took, 2)) for step in timeline(phases)] == [
        ("settings, GPU, folders", 0.25),
        ("ComfyUI started", 0.25),
        ("ComfyUI ready", 9.0),
    ]
