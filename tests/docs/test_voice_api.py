"""Every command of docs/voice-api.md runs as it stands, but for the ports."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.repository import ROOT
from support.voice import tone, voice_process
from support.waiting import PATIENCE

PAGE = (ROOT / "docs/voice-api.md").read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page with the ports of two servers in it, and a folder to run its commands in."""
    folder = tmp_path_factory.mktemp("docs")
    tone(folder / "myvoice.wav")
    for name in ("a", "b"):
        (folder / name).mkdir()
    with voice_process("chatterbox", folder / "a") as chatterbox, voice_process("xtts", folder / "b") as xtts:
        text = PAGE.replace("http://localhost:8000", chatterbox).replace("http://localhost:8020", xtts)
        yield text, folder


def blocks(text: str, language: str) -> list[str]:
    """The page's blocks of code."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_every_command_of_the_page_runs(page: tuple[str, Path]) -> None:
    text, folder = page
    commands = "\n".join(blocks(text, "bash")).replace("curl ", "curl --fail-with-body ")
    assert commands.count("curl ") >= 15
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for name in ("hello.wav", "output.wav", "streamed.wav", "kept.wav"):
        assert (folder / name).read_bytes()[:4] == b"RIFF"
    assert (folder / "b/output/scene-01.wav").exists()
    assert "voice_first_byte_seconds_count" in (folder / "metrics.txt").read_text()
    for name in re.findall(r"`(voice_\w+)", text.partition("`/metrics` has")[2].partition("\n\n")[0]):
        assert name in (folder / "metrics.txt").read_text()


def test_the_program_of_the_page_runs(page: tuple[str, Path]) -> None:
    text, folder = page
    for program in blocks(text, "python"):
        subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, timeout=PATIENCE)
    assert (folder / "hello.mp3").stat().st_size > 1000
