"""An engine that nobody listens to stops within a second, and one that nobody asks gives all its memory back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hearmeman_voice.engine import Request, Spec
from support.memory import children, resident
from support.voice import CLIENT, running
from support.waiting import wait_for

BLANKS = ("the children went to the park on a sunny day and stayed there until the evening came " * 40)[:2900]
"""A long text without an end of a sentence."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """An API with hibari that puts it away after half a second: its address and its process."""
    folder = tmp_path_factory.mktemp("idle")
    with running("chatterbox", folder, environ={"VOICE_IDLE_UNLOAD_SECONDS": "0.5"}) as (url, process):
        yield url, process.pid


def state(url: str) -> dict[str, Any]:
    found: dict[str, Any] = CLIENT.get(f"{url}/health").json()
    return found


def speak(url: str, process: int, formats: tuple[str, ...] = ()) -> float:
    """Speak a sentence in each format, which loads all that they need; MB of the engine while it speaks."""
    for format in formats:
        CLIENT.post(f"{url}/audio/speech", json={"input": "Well, hello.", "response_format": format}).raise_for_status()
    # Half a second after it spoke it may be gone.
    with CLIENT.stream("POST", f"{url}/audio/speech", json={"input": BLANKS}) as answer:
        assert next(answer.iter_raw())
        return resident(process)[1]


def put_away(url: str, process: int) -> float:
    """Wait until the engine is put away; MB of the server and all its children."""
    wait_for(lambda: not state(url)["loaded"] and not children(process), "the engine is put away")
    return sum(resident(process))


def test_an_idle_engine_gives_all_its_memory_back(served: tuple[str, int]) -> None:
    url, process = served
    never = put_away(url, process)
    engine = speak(url, process, ("wav", "mp3", "flac", "opus", "aac"))
    after = [put_away(url, process)]
    speak(url, process)
    after.append(put_away(url, process))
    # What stays is the server, which has its encoders since it spoke.
    assert engine > 100 and max(after) - never < 40, (never, engine, after)


@pytest.mark.alone
@pytest.mark.parametrize("format", ["pcm", "mp3"])
def test_who_hangs_up_has_an_idle_engine_within_a_second(served: tuple[str, int], format: str) -> None:
    url, _ = served
    for _ in range(4):
        body = {"input": BLANKS, "response_format": format}
        with CLIENT.stream("POST", f"{url}/audio/speech", json=body) as answer:
            assert next(answer.iter_raw())
        began = time.monotonic()
        wait_for(lambda: not state(url)["in_flight"], "the engine is idle")
        assert time.monotonic() - began < 1


def test_hibari_stops_in_the_middle_of_a_chunk() -> None:
    engine = Spec("hibari").make()
    engine.load()
    asked = Request(BLANKS[: engine.limit("en")], engine.voices[0], seed=1)
    began = time.process_time()
    [whole] = engine.synthesize(asked)
    usual = time.process_time() - began
    began = time.process_time()
    assert not [*engine.synthesize(asked, lambda: True)]
    assert time.process_time() - began < usual / 2, json.dumps([usual, time.process_time() - began])
    [again] = engine.synthesize(asked)
    assert (again == whole).all()


def test_a_chunk_is_short_enough_for_the_part_that_cannot_be_stopped(tmp_path: Path) -> None:
    engine = Spec("hibari", tmp_path).make()
    assert engine.limit("en") <= 200
