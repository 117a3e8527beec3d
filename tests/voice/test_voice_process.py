"""The command: it refuses what makes no sense, ends when it is told to, and ends by itself when its engine is gone."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from hearmeman_voice.__main__ import main
from support.voice import CLIENT, running
from support.waiting import PATIENCE, wait_for

LONG = "The quick brown fox jumps over the lazy dog, and then it sleeps in the warm sun until the evening comes. " * 25


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
def test_arguments_that_make_no_sense_are_named(
    arguments: list[str], environ: dict[str, str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments, environ)
    assert word in capsys.readouterr().err


def test_where_a_port_is_taken_another_host_is_set_and_it_ends_when_it_is_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["chatterbox", "--engine", "hibari", "--port", port, "--voices", str(tmp_path / "v")], {}) == 1
        assert capsys.readouterr().err == (
            f"port {port} of 127.0.0.1: Address already in use: set another --host or --port\n"
        )
        # Every other test sets another port.
        with running("chatterbox", tmp_path, host="127.0.0.2", port=int(port)) as (url, process):
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
