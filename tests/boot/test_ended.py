"""Why a process ended: told by its exit code, the kernel's count of what it ended for memory, and its own last words."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hearmeman.boot import ended, keep
from hearmeman.boot.output import Output
from hearmeman.status import collect
from support.repository import ROOT
from support.waiting import PATIENCE


def test_the_kernel_s_count_is_read_from_either_cgroup_version(tmp_path: Path) -> None:
    assert ended.oom_kills(tmp_path) == 0
    for name, path in (
        ("one", "sys/fs/cgroup/memory.events"),
        ("two", "sys/fs/cgroup/memory/docker/x/memory.oom_control"),
    ):
        root = tmp_path / name
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text("low 0\noom 7\noom_kill 3\nunder_oom 0\n")
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/cgroup").write_text("4:memory:/docker/x\n0::/\n")
        assert ended.oom_kills(root) == 3


@pytest.mark.parametrize(
    ("code", "kills", "said"),
    [
        (-9, (1, 2), "memory (RAM, not the GPU's) ran out"),
        (137, (0, 1), "memory (RAM, not the GPU's) ran out"),
        (-9, (1, 1), "it was killed (SIGKILL)"),
        (-signal.SIGSEGV, (0, 0), "it was ended by SIGSEGV"),
        (1, (0, 5), ""),
        (0, (0, 0), ""),
    ],
)
def test_an_end_is_explained(code: int, kills: tuple[int, int], said: str) -> None:
    found = ended.why(code, *kills)
    assert said in found if said else found == ""


def test_a_process_s_last_words_and_what_comfyui_could_not_load_are_kept(tmp_path: Path) -> None:
    output = Output("comfyui", tmp_path / "log", r"Cannot import .+ module|\(IMPORT FAILED\)")
    output.feed(b"Cannot import /workspace/ComfyUI/custom_nodes/Broken module for custom nodes: No module named 'x'\n")
    output.feed(b"   0.1 seconds (IMPORT FAILED): /workspace/ComfyUI/custom_nodes/Broken\n")
    output.feed(b"   0.0 seconds (IMPORT FAILED): /opt/comfyui-nodes/Other\nlast words\n\n")
    assert output.last == "last words"
    assert collect.failed_nodes(output.notes) == {"Broken": "No module named 'x'", "Other": "see ComfyUI's log"}


def test_a_crash_loop_says_how_it_ended() -> None:
    report = {"exit": -9, "why": "memory ran out", "last_line": "loading", "starts": 4, "pid": None, "again_at": 108.0}
    process = {"keep": report, "statename": "RUNNING", "now": 100, "start": 0}
    words = collect.words(process)
    assert words == "died, restarting in 8 s, started 4 times, last exit -9: memory ran out; its last line: loading"
    assert collect.end_of(report) == "it ended with exit -9; memory ran out; its last line: loading"
    assert collect.end_of({"pid": 5, "exit": 1}) == ""


def test_a_full_volume_is_a_warning_while_the_pod_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert collect.filling({"volume": {"path": str(tmp_path / "gone")}}) == []
    monkeypatch.setattr(collect, "_FULL", -1.0)
    [warning] = collect.filling({"volume": {"path": str(tmp_path)}})
    assert "outputs and models may not fit" in warning


def keeping(folder: Path, script: str, *words: str) -> list[str]:
    (folder / "env.json").write_text("{}")
    files = [
        "--env-file",
        str(folder / "env.json"),
        "--log",
        str(folder / "log"),
        "--report",
        str(folder / "report.json"),
    ]
    return [sys.executable, "-m", "hearmeman", "keep", "thing", *files, *words, "--", sys.executable, "-c", script]


def test_what_ends_with_75_is_tried_again_until_it_is_done(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys\n"
        f"tries = pathlib.Path({str(tmp_path / 'tries')!r})\n"
        "tries.write_text(tries.read_text() + 'x' if tries.exists() else 'x')\n"
        "sys.exit(75 if len(tries.read_text()) < 3 else 0)\n"
    )
    done = subprocess.run(
        keeping(tmp_path, script, "--once"),
        env={"PYTHONPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("process.unfinished exit=75") == 2
    assert "died" not in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["done"], report["exit"], report["starts"]) == (True, 0, 3)


@pytest.mark.parametrize("code", keep.FINAL_CODES)
def test_what_is_done_or_cannot_be_done_is_not_tried_again(tmp_path: Path, code: int) -> None:
    command = keeping(tmp_path, f"raise SystemExit({code})", "--once")
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT / "python")}, capture_output=True, timeout=PATIENCE)
    assert done.returncode == code


def test_comfyui_is_ended_by_the_kernel_before_what_uploads_its_outputs(tmp_path: Path) -> None:
    script = "print(open('/proc/self/oom_score_adj').read(), flush=True); import time; time.sleep(600)"
    command = keeping(tmp_path, script, "--oom-score", "500")
    child = subprocess.Popen(command, env={"PYTHONPATH": str(ROOT / "python")}, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        end = time.monotonic() + 60
        while "500" not in child.stdout.readline().split():
            assert time.monotonic() < end
    finally:
        child.terminate()
        assert child.wait(PATIENCE) == 0


def test_a_log_that_became_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "target")
    Output("p", tmp_path / "log").write(b"x")
    assert not (tmp_path / "target").exists()
