"""One queue, one engine's process: who waits, who is sent away, what stops it, and what a failure costs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from hearmeman_voice import process
from hearmeman_voice import text as texts
from hearmeman_voice.engine import KNOBS, RANGES, Request, Spec, Voice, check_values, language_of
from hearmeman_voice.speaker import Broken, Failed, Full, NotReady, Refused, Speaker
from support.held_engine import ENGINE, Hand
from support.voice_engines import Clock, Wrong, wrong
from support.waiting import PATIENCE, wait_for

WRONG = "support.voice_engines:Wrong"
Result = TypeVar("Result")
LONG = "This sentence is long enough to be a chunk of its own, which it is. " * 4


@contextmanager
def running(spec: Spec, **more: Any) -> Iterator[Speaker]:
    speaker = Speaker(spec, **more)
    speaker.start()
    try:
        wait_for(lambda: speaker.state()["loaded"] or speaker.broken.is_set(), "the engine is loaded")
        yield speaker
    finally:
        speaker.close()


@pytest.fixture(scope="module")
def hibari() -> Iterator[Speaker]:
    with running(Spec("hibari")) as speaker:
        yield speaker


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Speaker]:
    with running(Spec(WRONG, tmp_path)) as speaker:
        yield speaker


@pytest.fixture
def hand(tmp_path: Path) -> Hand:
    held = Hand(tmp_path)
    held.let_load()
    return held


def run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(asyncio.wait_for(work, PATIENCE))


async def all_of(blocks: AsyncGenerator[np.ndarray[Any, Any], None]) -> np.ndarray[Any, Any]:
    return np.concatenate([block async for block in blocks])


def spoken(speaker: Speaker, text: str, **more: Any) -> np.ndarray[Any, Any]:
    return run(all_of(speaker.speak(Request(text, Voice("heart"), **more))))


async def until(condition: Any) -> None:
    async def look() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), PATIENCE)


def test_a_seed_makes_the_same_sound_again(hibari: Speaker) -> None:
    first, second, other = (spoken(hibari, "Say it once more.", seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_speed_is_what_was_asked_for_over_its_whole_range(hibari: Speaker) -> None:
    text = "The quick brown fox jumps over the lazy dog near the bank of the river."
    normal = len(spoken(hibari, text))
    for speed in (0.25, 0.5, 2.0, 4.0):
        assert len(spoken(hibari, text, speed=speed)) == pytest.approx(normal / speed, rel=0.25), speed


def test_the_sound_of_a_text_is_that_of_its_chunks(hibari: Speaker) -> None:
    sentences = [
        "The first of the two sentences is about a train that is late.",
        "The second one is about the rain over the hills.",
    ]
    together = len(spoken(hibari, " ".join(sentences), seed=3))
    assert together == sum(len(spoken(hibari, sentence, seed=3)) for sentence in sentences)


@pytest.mark.parametrize(
    "text", ["x² + y³ = z½", "Ünïcödé wörds!", "1,250 people paid $9.99 at 7:30 pm.", "tab\tnull\0bell\a"], ids=range(4)
)
def test_odd_text_is_spoken(hibari: Speaker, text: str) -> None:
    sound = spoken(hibari, text)
    assert len(sound) > 2400 and np.isfinite(sound).all()


@pytest.mark.parametrize("text", ["🎉🎉", "...", "", "今日は"])
def test_what_makes_no_sound_is_refused(hibari: Speaker, text: str) -> None:
    with pytest.raises(Refused) as caught:
        spoken(hibari, text)
    assert (caught.value.param, caught.value.code) == ("input", "nothing_to_speak")


def test_it_says_what_is_loaded(hibari: Speaker) -> None:
    wait_for(lambda: hibari.state()["weights"] is not None, "the weights are hashed")
    state = hibari.state()
    assert (state["name"], state["version"], len(state["weights"])) == ("hibari", "0.2.1", 64)
    wait_for(lambda: not hibari.state()["in_flight"] and not hibari.state()["waiting"], "nothing is spoken any more")


def test_only_the_voice_that_is_in_the_wheel_is_there(hibari: Speaker) -> None:
    assert [voice.id for voice in hibari.engine.voices] == ["heart"]
    with pytest.raises(Refused, match="it speaks en"):
        spoken(hibari, "Guten Tag", language="de")


def test_the_first_sentence_leaves_while_the_second_is_made(hand: Hand) -> None:
    async def work(speaker: Speaker) -> None:
        blocks = speaker.speak(Request(LONG, Voice("nobody")))
        hand.allow(3)
        samples = 0
        while samples < 7200:
            samples += len(await anext(blocks))
        assert len(hand.made()) == 3 and speaker.state()["in_flight"] == 1
        await blocks.aclose()

    with running(Spec(ENGINE, hand.folder)) as speaker:
        run(work(speaker))


def test_who_leaves_in_a_chunk_stops_the_engine(hand: Hand) -> None:
    async def work(speaker: Speaker) -> None:
        blocks = speaker.speak(Request(LONG, Voice("nobody")))
        hand.allow(2)
        await anext(blocks)
        await until(lambda: len(hand.made()) == 2)
        await blocks.aclose()
        await until(lambda: not speaker.state()["in_flight"])
        hand.allow(100)
        other = speaker.speak(Request("another one", Voice("nobody")))
        await all_of(other)
        assert [made["text"] for made in hand.made()[2:]] == ["another one"] * 3

    with running(Spec(ENGINE, hand.folder)) as speaker:
        pid = speaker.state()["pid"]
        run(work(speaker))
        assert speaker.state()["pid"] == pid


def test_a_full_queue_sends_away_at_once_and_who_leaves_it_is_never_spoken(hand: Hand) -> None:
    async def work(speaker: Speaker) -> None:
        speaking = asyncio.create_task(all_of(speaker.speak(Request("the first", Voice("nobody")))))
        await until(lambda: speaker.state()["in_flight"])
        waiting = [
            asyncio.create_task(all_of(speaker.speak(Request(f"waiter {n}", Voice("nobody"))))) for n in range(2)
        ]
        await until(lambda: speaker.state()["waiting"] == 2)
        with pytest.raises(Full) as caught:
            await all_of(speaker.speak(Request("too many", Voice("nobody"))))
        assert 1 <= caught.value.retry_after <= 20
        waiting[0].cancel()
        await until(lambda: speaker.state()["waiting"] == 1)
        hand.allow(100)
        await speaking
        await waiting[1]
        assert {made["text"] for made in hand.made()} == {"the first", "waiter 1"}

    with running(Spec(ENGINE, hand.folder), queue_length=2) as speaker:
        run(work(speaker))


def test_waiting_is_not_charged_to_a_requests_own_time(hand: Hand) -> None:
    clock = Clock()

    async def work(speaker: Speaker) -> None:
        first = asyncio.create_task(all_of(speaker.speak(Request("the first", Voice("nobody")))))
        await until(lambda: speaker.state()["in_flight"])
        second = asyncio.create_task(all_of(speaker.speak(Request("the second", Voice("nobody")))))
        await until(lambda: speaker.state()["waiting"])
        clock.now += 8
        hand.allow(4)
        await first
        await until(lambda: len(hand.made()) == 4)
        clock.now += 8
        hand.allow(2)
        assert len(await second) == 7200
        third = asyncio.create_task(all_of(speaker.speak(Request("the third", Voice("nobody")))))
        hand.allow(1)
        await until(lambda: len(hand.made()) == 7)
        clock.now += 11
        with pytest.raises(Failed, match="longer than 10 s"):
            await third

    with running(Spec(ENGINE, hand.folder), job_seconds=10, clock=clock) as speaker:
        run(work(speaker))


def test_a_text_that_takes_too_long_is_sent_in_parts(hand: Hand) -> None:
    clock = Clock()
    parts = [
        "The first sentence is long enough to be one, and so it is.",
        "The second sentence is as long as the first.",
    ]

    async def say(speaker: Speaker, text: str) -> int:
        made = len(hand.made())
        task = asyncio.create_task(all_of(speaker.speak(Request(text, Voice("nobody")))))
        for number in range(3 * text.count(".")):
            hand.allow(1)
            await until(lambda number=number: len(hand.made()) > made + number or task.done())
            clock.now += 3
        return len(await task)

    with running(Spec(ENGINE, hand.folder), job_seconds=10, clock=clock) as speaker:
        with pytest.raises(Failed, match="longer than 10 s and was stopped; send the text in parts"):
            run(say(speaker, " ".join(parts)))
        hand.begin_anew()
        assert [run(say(speaker, part)) for part in parts] == [7200, 7200]


def test_idle_memory_goes_back_and_asking_how_it_is_is_no_use(hand: Hand) -> None:
    clock = Clock()
    with running(Spec(ENGINE, hand.folder), idle_unload_seconds=60, clock=clock) as speaker:
        pid = speaker.state()["pid"]
        clock.now += 59
        assert speaker.state()["loaded"]
        clock.now += 2
        wait_for(lambda: not speaker.state()["loaded"], "the engine is put away")
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "its process is gone")
        assert not speaker.state()["loading"] and not speaker.broken.is_set()
        hand.allow(3)
        assert len(spoken(speaker, "and back again")) == 7200
        assert speaker.state()["pid"] not in (None, pid)


def test_it_is_not_put_away_while_it_speaks(hand: Hand) -> None:
    clock = Clock()

    async def work(speaker: Speaker) -> None:
        task = asyncio.create_task(all_of(speaker.speak(Request("slowly", Voice("nobody")))))
        await until(lambda: speaker.state()["in_flight"])
        clock.now += 100
        hand.allow(3)
        assert len(await task) == 7200
        assert speaker.state()["loaded"]

    with running(Spec(ENGINE, hand.folder), idle_unload_seconds=60, clock=clock) as speaker:
        run(work(speaker))


def test_before_it_is_loaded_it_says_how_far_it_is(tmp_path: Path) -> None:
    models = tmp_path / "models"
    speaker = Speaker(Spec(WRONG, models))
    speaker.start()
    try:
        with pytest.raises(NotReady, match="model.bin is not there yet") as caught:
            run(all_of(speaker.speak(wrong())))
        assert caught.value.lasting
        models.mkdir()
        wait_for(lambda: speaker.state()["loaded"], "what was missing is found")
        assert len(run(all_of(speaker.speak(wrong())))) == 2400
    finally:
        speaker.close()


def test_why_a_process_cannot_be_started_is_said_and_nothing_else_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    with running(Spec(WRONG, tmp_path)) as speaker, pytest.raises(Broken, match="No such file or directory"):
        run(all_of(speaker.speak(wrong())))
    assert not failures


def test_weights_that_cannot_be_loaded_break_it(tmp_path: Path) -> None:
    with running(Spec(WRONG, tmp_path, options={"unloadable": True})) as speaker:
        with pytest.raises(Broken, match="model.bin is damaged"):
            run(all_of(speaker.speak(wrong())))
        assert "damaged" in speaker.state()["broken"]


@pytest.mark.parametrize(
    ("text", "error"),
    [("error", Failed), ("memory for a long text", Failed), ("refuse", Refused), ("silence", Refused)],
)
def test_a_failure_of_one_request_costs_no_other(faulty: Speaker, text: str, error: type[Exception]) -> None:
    pid = faulty.state()["pid"]
    with pytest.raises(error):
        run(all_of(faulty.speak(wrong(text=text))))
    assert len(run(all_of(faulty.speak(wrong())))) == 2400
    assert faulty.state()["pid"] == pid and not faulty.broken.is_set()


def test_where_memory_ran_out_it_is_tried_again_or_with_a_shorter_text(faulty: Speaker, tmp_path: Path) -> None:
    """The engine has room for short texts, and for none while something else holds it."""
    advice = "something else is using it; try again, or with a shorter text"
    (tmp_path / "held").touch()
    with pytest.raises(Failed, match=advice):
        run(all_of(faulty.speak(wrong(text="memory"))))
    (tmp_path / "held").unlink()
    assert len(run(all_of(faulty.speak(wrong(text="memory"))))) == 2400
    with pytest.raises(Failed, match=advice):
        run(all_of(faulty.speak(wrong(text="memory for a long text"))))
    assert len(run(all_of(faulty.speak(wrong(text="memory"))))) == 2400


@pytest.mark.parametrize(("text", "why"), [("assert", "device-side assert"), ("crash", "status 11")])
def test_what_breaks_the_process_is_said_to_all_who_wait(faulty: Speaker, text: str, why: str) -> None:
    async def work() -> list[Any]:
        speaking = [all_of(faulty.speak(wrong(text=words))) for words in (text, "hello", "hello")]
        return list(await asyncio.gather(*speaking, return_exceptions=True))

    results = run(work())
    assert all(isinstance(result, Broken) and why in str(result) for result in results), results
    assert faulty.broken.is_set() and faulty.state()["broken"]
    with pytest.raises(Broken):
        run(all_of(faulty.speak(wrong())))


def test_a_killed_process_is_noticed_while_nobody_speaks(faulty: Speaker) -> None:
    os.kill(faulty.state()["pid"], signal.SIGKILL)
    wait_for(faulty.broken.is_set, "its end is noticed")
    assert "signal 9" in faulty.state()["broken"]


def test_a_request_that_comes_as_the_process_breaks_does_not_wait(
    faulty: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = texts.split

    def late(*given: Any) -> list[str]:
        os.kill(faulty.state()["pid"], signal.SIGKILL)
        wait_for(faulty.broken.is_set, "its end is noticed")
        return split(*given)

    monkeypatch.setattr(texts, "split", late)
    with pytest.raises(Broken):
        run(all_of(faulty.speak(wrong())))


def test_an_engine_that_does_not_stop_is_ended(faulty: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.2)
    pid = faulty.state()["pid"]

    async def work() -> None:
        blocks = faulty.speak(wrong(text="hang"))
        await anext(blocks)
        await blocks.aclose()

    run(work())
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "it is gone")
    wait_for(faulty.broken.is_set, "the server knows")


def test_the_engine_does_not_outlive_its_server(hand: Hand) -> None:
    with running(Spec(ENGINE, hand.folder)) as speaker:
        pid = speaker.state()["pid"]
    assert not Path(f"/proc/{pid}").exists()


def test_a_server_can_be_closed_before_it_was_started_and_twice(tmp_path: Path) -> None:
    speaker = Speaker(Spec(WRONG, tmp_path))
    speaker.close()
    speaker.close()


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_has_its_range(knob: str) -> None:
    least, most = RANGES[knob]
    for bound in (least, most):
        check_values(wrong(**{knob: int(bound) if knob in ("seed", "top_k") else bound}))
    wrong_ones: list[object] = [least - 1, most + 1, float("nan"), float("inf"), "fast", True]
    for value in wrong_ones:
        with pytest.raises(Refused) as caught:
            check_values(wrong(**{knob: value}))
        assert caught.value.param == knob


@pytest.mark.parametrize(
    ("asked", "found"),
    [("EN", "en"), ("en-GB", "en"), ("en_us", "en"), ("zh", "zh-cn"), ("zh-TW", "zh-cn"), (" zh-cn ", "zh-cn")],
)
def test_a_language_is_found_by_any_of_its_names(asked: str, found: str) -> None:
    assert language_of(Wrong(Path()), asked) == found


@pytest.mark.parametrize("asked", ["", "xx", "english", "e" * 5000])
def test_a_language_that_nobody_speaks_is_refused(asked: str) -> None:
    with pytest.raises(Refused, match="does not speak") as caught:
        language_of(Wrong(Path()), asked)
    assert caught.value.param == "language" and len(str(caught.value)) < 200


def test_a_request_travels_whole() -> None:
    request = Request("a \ud800 b", Voice("anna", Path("/x/anna.wav"), "de"), "de", 1.5, seed=0, top_p=0.5)
    assert Request.from_json(request.as_json()) == request
