"""Batches: every row once, whatever ends the command, and nothing sent before all rows are right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.comfyui import ComfyUI, comfyui
from hearmeman.cli import main
from hearmeman.workflows import batch
from support.repository import ROOT

FOLDER = ROOT / "workflows"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ComfyUI]:
    with comfyui(tmp_path / "comfyui", write_seconds=0.2) as running:
        yield running


def prompts(server: ComfyUI) -> int:
    with urllib.request.urlopen(f"{server.url}/history") as answer:
        return len(json.load(answer))


def rows(folder: Path, count: int) -> Path:
    path = folder / "jobs.csv"
    path.write_text("width,color\n" + "".join(f"{64 + number},#0000{number:02x}\n" for number in range(count)))
    return path


def words(server: ComfyUI, path: Path, out: Path, *more: str) -> list[str]:
    return [
        "workflows",
        "batch",
        "smoke-image",
        str(path),
        "--out",
        str(out),
        "--url",
        server.url,
        "--dir",
        str(FOLDER),
        *more,
    ]


def test_every_row_gives_its_files_under_its_number(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(words(server, rows(tmp_path, 5), out, "--json"), {}) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 5, "done": 5, "failed": {}}
    assert [path.name[:8] for path in sorted(out.glob("row-*"))] == [f"row-{number:04}" for number in range(1, 6)]


def test_a_second_run_wants_resume_and_sends_nothing_again(server: ComfyUI, tmp_path: Path) -> None:
    path, out = rows(tmp_path, 3), tmp_path / "out"
    assert main(words(server, path, out), {}) == 0
    assert main(words(server, path, out), {}) == 2
    assert main(words(server, path, out, "--resume"), {}) == 0
    assert prompts(server) == 3


def test_a_row_that_was_changed_or_whose_file_is_gone_is_run_again(server: ComfyUI, tmp_path: Path) -> None:
    path, out = rows(tmp_path, 3), tmp_path / "out"
    assert main(words(server, path, out), {}) == 0
    next(out.glob("row-0002-*")).unlink()
    path.write_text(path.read_text().replace("66,", "99,"))
    assert main(words(server, path, out, "--resume", "--set", "count=1"), {}) == 0
    # ComfyUI knows the second row's picture already and makes it no second time.
    assert prompts(server) == 5


def test_a_killed_batch_goes_on_without_a_row_twice(server: ComfyUI, tmp_path: Path) -> None:
    path, out = rows(tmp_path, 8), tmp_path / "out"
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python")}
    command = [sys.executable, "-m", "hearmeman", *words(server, path, out)]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(list(out.glob("row-*"))) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(words(server, path, out, "--resume"), {}) == 0
    assert len(list(out.glob("row-*"))) == 8
    assert prompts(server) == 8


def test_wrong_rows_are_all_named_and_nothing_is_sent(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text('{"width": 64}\n{"widht": 64}\n\n{"width": "x"}\n')
    assert main(words(server, path, tmp_path / "out"), {}) == 2
    said = capsys.readouterr().err
    assert "row 2: smoke-image has no input widht: did you mean width?" in said and "row 3" in said
    assert prompts(server) == 0 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("jobs.txt", "width\n64\n", "a batch is a .csv"),
        ("jobs.csv", "width\n", "has no rows"),
        ("jobs.csv", "width\n64,65\n", "row 1: it takes one value for each column"),
        ("jobs.jsonl", "{", "is not valid JSONL"),
        ("jobs.jsonl", "[1]", "row 1: it takes one value"),
        ("jobs.jsonl", '{"width": [1]}', "row 1: it takes one value"),
    ],
)
def test_a_file_of_rows_that_is_none_is_explained(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(batch.BatchError, match=words):
        batch.read_rows(tmp_path / name)


def test_a_row_that_fails_leaves_the_others(server: ComfyUI, tmp_path: Path) -> None:
    path, out = rows(tmp_path, 3), tmp_path / "out"
    # The second row's picture is too large for the stand-in's memory limit of what it takes.
    path.write_text("width,height,prefix\n64,64,a\n64,64,../../out\n65,64,b\n")
    assert main(words(server, path, out), {}) == 3
    assert sorted(found.name[:8] for found in out.glob("row-*")) == ["row-0001", "row-0003"]
    events = [json.loads(line) for line in (out / batch.JOURNAL).read_text().splitlines()]
    assert {event["row"] for event in events if event["state"] == "failed"} == {2}
