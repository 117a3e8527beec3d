"""Batches: every row once, whatever ends the command, and nothing sent before all rows are right."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.comfyui import ComfyUI, comfyui
from fakes.remote_pod import remote_pod
from hearmeman.cli import main
from hearmeman.workflows import batch, client
from support.repository import ROOT
from support.waiting import PATIENCE, wait_for

FOLDER = ROOT / "workflows"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ComfyUI]:
    with comfyui(tmp_path / "comfyui", write_seconds=0.2) as running:
        yield running


def prompts(server: ComfyUI) -> int:
    """How many prompts were ever posted: each takes the next number, and one of the same id replaces the other."""
    with urllib.request.urlopen(f"{server.url}/history") as answer:
        return 1 + max((int(entry["prompt"][0]) for entry in json.load(answer).values()), default=-1)


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
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1] == {"event": "done", "rows": 5, "done": 5, "failed": {}}
    assert {event["row"] for event in events if event.get("state") == "done"} == {1, 2, 3, 4, 5}
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


def start(server: ComfyUI, path: Path, out: Path) -> subprocess.Popen[bytes]:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python")}
    command = [sys.executable, "-m", "hearmeman", *words(server, path, out, "--resume")]
    return subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def sent(out: Path) -> int:
    journal = out / batch.JOURNAL
    return journal.read_text().count('"sent"') if journal.exists() else 0


def test_a_batch_killed_again_and_again_sends_no_row_twice(server: ComfyUI, tmp_path: Path) -> None:
    kills, chance = (
        int(os.environ.get("KILLS", "3")),
        random.Random(os.environ.get("SEED") if "KILLS" in os.environ else 20),
    )
    path, out = rows(tmp_path, kills + 5), tmp_path / "out"
    for _ in range(kills):
        process, before, end = start(server, path, out), sent(out), time.monotonic() + 120
        # The moment between the record of a prompt and ComfyUI's answer is what matters most.
        while sent(out) == before and process.poll() is None and time.monotonic() < end:
            time.sleep(0.0005)
        time.sleep(chance.choice([0.0, chance.uniform(0, 0.01), chance.uniform(0, 0.4)]))
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
    assert main(words(server, path, out, "--resume"), {}) == 0
    assert len({found.name[:8] for found in out.glob("row-*")}) == kills + 5
    assert prompts(server) == kills + 5
    assert len(list(server.output.glob("**/*.png"))) == kills + 5


def test_what_was_sent_and_never_came_is_sent_again(server: ComfyUI, tmp_path: Path) -> None:
    path, out = rows(tmp_path, 1), tmp_path / "out"
    assert main(words(server, path, out), {}) == 0
    [record, *_] = (out / batch.JOURNAL).read_text().splitlines()
    # As a process leaves it that was killed in the middle of writing the next line, before it posted anything.
    unsent = json.dumps(json.loads(record) | {"prompt_id": "00000000-0000-4000-8000-000000000000"})
    (out / batch.JOURNAL).write_text(f'{unsent}\n{{"row": 1, "ke')
    assert main(words(server, path, out, "--resume"), {}) == 0
    events = [json.loads(line) for line in (out / batch.JOURNAL).read_text().splitlines()]
    assert [event["state"] for event in events] == ["sent", "sent", "done"]
    assert prompts(server) == 2


def test_a_row_that_took_too_long_is_found_later(server: ComfyUI, tmp_path: Path) -> None:
    path, out = tmp_path / "jobs.csv", tmp_path / "out"
    path.write_text("count,color\n8,1\n")
    assert main(words(server, path, out, "--timeout", "0.5"), {}) == 3
    assert main(words(server, path, out, "--resume"), {}) == 0
    assert len(list(out.glob("row-0001-*"))) == 8 and prompts(server) == 1


def test_two_batches_in_one_folder_do_not_meet(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = rows(tmp_path, 1), tmp_path / "out"
    journal = batch.Journal(out / batch.JOURNAL)
    journal.open()
    try:
        assert main(words(server, path, out, "--resume"), {}) == 2
        assert main(words(server, path, tmp_path / "another"), {}) == 0
    finally:
        journal.close()
    assert "wait for it, or give another --out" in capsys.readouterr().err
    assert main(words(server, path, out, "--resume"), {}) == 0


def test_ctrl_c_takes_a_batch_out_of_comfyui(server: ComfyUI, tmp_path: Path) -> None:
    path, out = tmp_path / "jobs.csv", tmp_path / "out"
    path.write_text("count,color\n" + "".join(f"400,{number}\n" for number in range(3)))
    process = start(server, path, out)
    end = time.monotonic() + 120
    while sent(out) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    with urllib.request.urlopen(f"{server.url}/queue") as answer:
        queue = json.load(answer)
    assert queue["queue_pending"] == []
    while queue["queue_running"] and time.monotonic() < end:
        time.sleep(0.05)
        with urllib.request.urlopen(f"{server.url}/queue") as answer:
            queue = json.load(answer)
    assert queue["queue_running"] == []
    assert len(list(server.output.glob("**/*.png"))) < 100


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
        ("jobs.csv", "width\n64,65\n", "row 1: give one value for each column"),
        ("jobs.jsonl", "{", "is not valid JSONL"),
        ("jobs.jsonl", "[1]", "row 1: give one value"),
        ("jobs.jsonl", '{"width": [1]}', "row 1: give one value"),
    ],
)
def test_a_file_of_rows_that_is_none_is_explained(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(batch.BatchError, match=words):
        batch.read_rows(tmp_path / name)


@pytest.mark.parametrize(("name", "text"), [("jobs.csv", "width,height\n64,65\n"), ("jobs.jsonl", '{"width": 1}')])
def test_a_row_has_one_value_for_each_column(tmp_path: Path, name: str, text: str) -> None:
    wrong = {"jobs.csv": "width\n64,65\n", "jobs.jsonl": '{"width": [1, 2]}'}[name]
    (tmp_path / name).write_text(wrong)
    with pytest.raises(batch.BatchError, match="row 1: give one value for each column"):
        batch.read_rows(tmp_path / name)
    (tmp_path / name).write_text(text)
    assert len(batch.read_rows(tmp_path / name)) == 1


def test_a_batch_whose_pod_went_away_goes_on_by_the_same_command_with_resume(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.3)
    path, out = tmp_path / "jobs.csv", tmp_path / "out"
    path.write_text("count,color\n1,1\n5,2\n")
    with remote_pod(server.url) as pod:
        order = [pod.url if word == server.url else word for word in words(server, path, out, "--at-once", "1")]

        def leave() -> None:
            wait_for(lambda: sent(out) == 2, "the second row")
            pod.failing = 10**6

        leaving = threading.Thread(target=leave)
        leaving.start()
        assert main(order, {"ACCESS_TOKEN": pod.token}) == 1
        leaving.join()
        assert "Finished rows are kept: run the same command with --resume to continue" in capsys.readouterr().err
        pod.failing = 0
        assert main([*order, "--resume"], {"ACCESS_TOKEN": pod.token}) == 0
    assert (len(list(out.glob("row-*"))), prompts(server)) == (6, 2)


def test_a_row_that_fails_leaves_the_others(server: ComfyUI, tmp_path: Path) -> None:
    path, out = rows(tmp_path, 3), tmp_path / "out"
    # The second row's picture is too large for the stand-in's memory limit of what it takes.
    path.write_text("width,height,prefix\n64,64,a\n64,64,../../out\n65,64,b\n")
    assert main(words(server, path, out), {}) == 3
    assert sorted(found.name[:8] for found in out.glob("row-*")) == ["row-0001", "row-0003"]
    events = [json.loads(line) for line in (out / batch.JOURNAL).read_text().splitlines()]
    assert {event["row"] for event in events if event["state"] == "failed"} == {2}
