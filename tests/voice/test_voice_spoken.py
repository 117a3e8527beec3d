"""What is spoken is what was asked: a recogniser hears as much of it in every format as in the engine's own sound."""

from __future__ import annotations

import asyncio
import difflib
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pocketsphinx
import pytest
from numpy.typing import NDArray

from hearmeman_voice import audio
from hearmeman_voice.engine import Request, Spec, Voice
from hearmeman_voice.engines.hibari import Hibari
from hearmeman_voice.speaker import Speaker
from support.repository import ROOT
from support.waiting import wait_for

SENTENCES = ("The children went to the park on a sunny day.", "Tomorrow we will read a good book.")
HEARD = 0.4
"""How much of the text the recogniser finds at least; of another text it finds a tenth."""


def words(text: str) -> list[str]:
    return "".join(letter for letter in text.lower() if letter.isalpha() or letter == " ").split()


def heard(samples: NDArray[np.float32], rate: int) -> list[str]:
    decoder = _recogniser()
    decoder.start_utt()
    decoder.process_raw(audio.pcm16(audio.resample(samples, rate, 16000)), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return found.hypstr.split() if found else []


@functools.cache
def _recogniser() -> Any:
    return pocketsphinx.Decoder(samprate=16000, loglevel="FATAL")


def likeness(found: list[str]) -> float:
    return difflib.SequenceMatcher(None, found, words(" ".join(SENTENCES)), autojunk=False).ratio()


@pytest.fixture(scope="module")
def sound() -> Iterator[NDArray[np.float32]]:
    speaker = Speaker(Spec("hibari"))
    speaker.start()
    wait_for(lambda: speaker.state()["loaded"] or speaker.broken.is_set(), "the engine is loaded")

    async def speak() -> list[NDArray[np.float32]]:
        return [block async for block in speaker.speak(Request(" ".join(SENTENCES), Voice("heart"), seed=1))]

    yield np.concatenate(asyncio.run(speak()))
    speaker.close()


def test_what_is_spoken_is_what_was_asked_also_at_the_border_of_two_chunks(sound: NDArray[np.float32]) -> None:
    engine = Hibari(Path())
    engine.load()
    own = np.concatenate([*engine.synthesize(Request(" ".join(SENTENCES), Voice("heart"), seed=1))])
    yardstick, found = likeness(heard(own, engine.rate)), likeness(heard(sound, engine.rate))
    assert yardstick > HEARD, "the recogniser no longer hears the engine's own sound"
    assert found >= yardstick - 0.25


def test_compressed_sound_says_the_same_to_its_last_word(sound: NDArray[np.float32]) -> None:
    encoder = audio.Encoder("mp3", 24000)
    data = b"".join(encoder.write(block) for block in np.array_split(sound, 50)) + encoder.finish()
    found = heard(*audio.decode(data))
    assert likeness(found) > HEARD
    assert all(len(set(found) & set(words(sentence))) >= 2 for sentence in SENTENCES), found


def ended(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'python'}:{ROOT / 'tests'}", "HOME": str(tmp_path)}
    return subprocess.run(
        [sys.executable, *command], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )


def test_speaking_makes_no_internet_socket_and_leaves_nothing_in_home(tmp_path: Path) -> None:
    done = ended(tmp_path, "-m", "support.no_network", "support.voice_says")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 24000
    assert [*tmp_path.rglob("*")] == []


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_the_filter_of_the_test_above_ends_who_makes_one(tmp_path: Path, family: str) -> None:
    code = f"import socket; from support.no_network import forbid; forbid(); socket.socket(socket.AF_UNIX); socket.socket(socket.{family})"
    assert ended(tmp_path, "-c", code).returncode == -31
