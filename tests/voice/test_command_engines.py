"""flite and espeak-ng speak through their programs, as Debian has them; a program that hangs or fails is an error."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hearmeman_voice.engine import Request, Samples, Voice
from hearmeman_voice.engines.command import Espeak, Flite
from hearmeman_voice.refusals import Failed

SENTENCE = "The children went to the park on a sunny day."
ENGINES = (Flite, Espeak)
Engine = Flite | Espeak


def spoken(engine: Engine, voice: Voice, text: str = SENTENCE, language: str = "en", speed: float = 1.0) -> Samples:
    blocks = [*engine.synthesize(Request(text, voice, language=language, speed=speed))]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


@pytest.mark.parametrize("kind", ENGINES)
def test_each_voice_of_it_speaks_and_no_two_sound_alike(kind: type[Engine]) -> None:
    engine = kind(Path())
    engine.load()
    found = [spoken(engine, voice) for voice in engine.voices]
    for samples in found:
        assert samples.dtype == np.float32 and 1.5 < len(samples) / engine.rate < 5
        assert 0.1 < np.abs(samples).max() <= 1
    assert len({samples.tobytes() for samples in found}) == len(found)


@pytest.mark.parametrize("kind", ENGINES)
def test_twice_the_speed_is_half_the_time(kind: type[Engine]) -> None:
    engine = kind(Path())
    usual, fast = (len(spoken(engine, engine.voices[0], speed=speed)) for speed in (1.0, 2.0))
    assert 0.4 < fast / usual < 0.65


def test_a_voice_that_is_not_its_own_is_spoken_by_one_of_that_gender() -> None:
    engine = Flite(Path())
    by_gender = {"female": "slt", "male": "rms"}
    for gender, name in by_gender.items():
        own = next(voice for voice in engine.voices if voice.id == name)
        assert (spoken(engine, Voice("somebody", gender=gender)) == spoken(engine, own)).all()


def test_every_language_that_espeak_claims_is_one_of_its_own() -> None:
    engine = Espeak(Path())
    for language in engine.languages:
        assert len(spoken(engine, engine.voices[0], "1 2 3", language)), language


def test_the_version_is_the_programs() -> None:
    listed = subprocess.run(["dpkg-query", "-W", "flite", "espeak-ng"], capture_output=True, text=True, check=True)
    packages = dict(line.split("\t") for line in listed.stdout.splitlines())
    for name, kind in (("flite", Flite), ("espeak-ng", Espeak)):
        version = kind(Path()).version
        assert re.fullmatch(r"\d+\.\d+[\w.]*", version) and packages[name].startswith(version)


def test_nothing_to_say_is_silence() -> None:
    assert not len(spoken(Flite(Path()), Flite.voices[0], ""))


def program(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Put a program in flite's place."""
    (folder / "flite").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "flite").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_a_program_that_hangs_is_an_error_and_no_silence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(monkeypatch, tmp_path, "exec sleep 60")
    engine = Flite(Path())
    engine.longest = 0.5
    with pytest.raises(Failed, match="more than 0.5 s"):
        spoken(engine, Flite.voices[0])


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo no such voice >&2; exit 3", "failed with status 3: no such voice"),
        ("exit 0", "failed with status 0"),
        # The last argument is the file to write.
        ('for last; do :; done; head -c 1000 /dev/zero > "$last"', "cannot be read"),
        # Its words are more than a pipe holds.
        ("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1", "failed with status 1: xxx"),
    ],
)
def test_a_program_that_fails_is_an_error_and_no_silence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, says: str
) -> None:
    program(monkeypatch, tmp_path, script)
    with pytest.raises(Failed, match=says):
        spoken(Flite(Path()), Flite.voices[0])


def test_a_request_that_was_stopped_ends_the_program_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(monkeypatch, tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    began = time.monotonic()
    blocks: Sequence[Samples] = [
        *Flite(Path()).synthesize(Request(SENTENCE, Flite.voices[0]), (tmp_path / "pid").exists)
    ]
    assert not blocks and time.monotonic() - began < 30
    pid = (tmp_path / "pid").read_text().strip()
    assert not pid or not Path(f"/proc/{pid}").exists()


def test_a_program_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for kind in ENGINES:
        engine = kind(Path())
        assert engine.version == "absent" and engine.program in (engine.missing() or "")
        with pytest.raises(FileNotFoundError, match=engine.program):
            engine.load()
