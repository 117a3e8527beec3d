"""The command: it refuses what makes no sense, ends when it is told to, and ends by itself when its engine is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.repository import ROOT
from support.voice import CLIENT, running
from support.waiting import PATIENCE, wait_for

LONG = "The quick brown fox jumps over the lazy dog, and then it sleeps in the warm sun until the evening comes. " * 25


def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), **environ}
    words = [sys.executable, "-m", "hearmeman_voice", *arguments]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize(
    ("arguments", "environ", "word"),
    [
        (["piano"], {}, "piano"),
        (["xtts", "--engine", "piano"], {}, "hibari"),
        (["xtts", "--port", "eighty"], {}, "--port"),
        (["xtts", "--port", "70000"], {}, "--port"),
        (["xtts", "--queue", "-1"], {}, "--queue"),
        (["chatterbox"], {"CHATTERBOX_MODEL": "klingon"}, "multilingual"),
        (["xtts", "--engine", "hibari"], {"VOICE_IDLE_UNLOAD_SECONDS": "soon"}, "VOICE_IDLE_UNLOAD_SECONDS"),
        (["xtts", "--engine", "hibari"], {"VOICE_IDLE_UNLOAD_SECONDS": "-5"}, "VOICE_IDLE_UNLOAD_SECONDS"),
    ],
    ids=str,
)
def test_arguments_that_make_no_sense_are_named(arguments: list[str], environ: dict[str, str], word: str) -> None:
    done = command(*arguments, **environ)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with running("chatterbox", tmp_path) as (url, process):
        port = url.rpartition(":")[2]
        done = command("chatterbox", "--engine", "hibari", "--port", port, "--voices", str(tmp_path / "v"))
        assert done.returncode == 1
        assert port in done.stderr
        assert "Traceback" not in done.stderr
        engine = CLIENT.get(f"{url}/health").json()["pid"]
        process.terminate()
        assert process.wait(PATIENCE) == 0
        wait_for(lambda: not Path(f"/proc/{engine}").exists(), "the engine's process is gone")


def test_it_ends_when_its_engine_is_gone_so_that_it_is_started_again(tmp_path: Path) -> None:
    with running("chatterbox", tmp_path) as (url, process):
        engine = CLIENT.get(f"{url}/health").json()["pid"]
        with CLIENT.stream(
            "POST", f"{url}/audio/speech", json={"input": LONG[:2900], "stream_format": "sse"}
        ) as answer:
            lines = answer.iter_lines()
            assert "speech.audio.delta" in next(lines)
            os.kill(engine, signal.SIGKILL)
            said = "".join(lines)
        assert '"code":"engine_broken"' in said
        assert "[DONE]" not in said
        assert process.wait(PATIENCE) == 1
