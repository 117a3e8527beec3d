"""Stages of a file: whatever order events come in, what is over stays over, and what is late changes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fakes.serving import Fault, Request, Stored
from fakes.web import Web
from hearmeman.models.phase import Event, Phase, State, advance
from support.fetching import Case
from support.waiting import PATIENCE, wait_for

MIB = 1024**2


@pytest.mark.parametrize("phase", [Phase.PRESENT, Phase.FAILED])
def test_nothing_leads_out_of_what_is_over(phase: Phase) -> None:
    for event, attempt in itertools.product(Event, range(3)):
        assert advance(State(phase, 1), event, attempt) is None


def test_what_belongs_to_an_earlier_attempt_changes_nothing() -> None:
    for phase, event in itertools.product(Phase, Event):
        assert advance(State(phase, 2), event, 1) is None


def test_every_stage_can_be_ended_when_nothing_moves() -> None:
    for phase in Phase:
        if not State(phase).over:
            ended = advance(State(phase), Event.GIVE_UP, 0)
            assert ended is not None
            assert ended.phase is Phase.FAILED


ANSWERED, FAIL, BACK, AGAIN = Event.ANSWERED, Event.FAIL, Event.SET_BACK, Event.AGAIN
CONNECTIONS: list[tuple[Event, ...]] = [
    (ANSWERED, FAIL),
    (ANSWERED, BACK),
    (BACK, ANSWERED),
    (ANSWERED, AGAIN),
    (FAIL,),
]
HASHERS = [(Event.WHOLE, Event.PLACED), (Event.WHOLE, Event.WRONG), (Event.WHOLE, Event.REFUSED), (Event.GIVE_UP,)]


def orders(threads: Sequence[Sequence[Event]]) -> Iterator[list[tuple[int, Event]]]:
    """Give every order in which threads may take the lock, each going through its events in turn."""
    turns = [number for number, events in enumerate(threads) for _ in events]
    for order in set(itertools.permutations(turns)):
        left = [iter(events) for events in threads]
        yield [(number, next(left[number])) for number in order]


@pytest.mark.parametrize("hasher", HASHERS)
def test_in_every_order_of_three_threads_what_is_final_is_final(hasher: tuple[Event, ...]) -> None:
    """Two connections and the thread that hashes; each event carries the attempt that its thread began with."""
    seen = set()
    for one, other in itertools.combinations_with_replacement(CONNECTIONS, 2):
        for order in orders([one, other, hasher]):
            state = State(Phase.STARTING)
            final: State | None = None
            placed = whole = False
            for _, event in order:
                after = advance(state, event, 0)
                if after is not None:
                    assert final is None, "it was over, and moved"
                    assert event is not Event.PLACED or whole, "a place is given only to what was whole"
                    whole = whole or event is Event.WHOLE
                    placed = placed or event is Event.PLACED
                    state = after
                if state.over:
                    final = final or state
                    assert state == final
            assert (state.phase is Phase.PRESENT) == placed, "shown as what it is"
            seen.add(state.phase)
    assert len(seen) > 1


def answers(web: Web) -> list[Request]:
    return [request for request in list(web.requests) if request.path == "/one.bin"]


def state_of(case: Case, name: str) -> str | None:
    found: str | None = case.state()["files"].get(name, {}).get("state")
    return found


def test_an_answer_that_comes_after_the_file_has_failed_does_not_bring_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second connection's answer is held until the first has met a full disk; another file keeps the fetch going."""
    files = {name: Stored(hashlib.shake_128(name.encode()).digest(20 * MIB)) for name in ("one.bin", "two.bin")}
    case = Case(tmp_path, {"DOWNLOAD_TIMEOUT": "600", "DOWNLOAD_CONNECTIONS_PER_FILE": "2"})
    real = os.pwrite
    with Web(files) as web:
        held = web.faults["one.bin"] = Fault("hold", after=1, times=1)
        other = web.faults["two.bin"] = Fault("hold")
        for name, stored in files.items():
            source = {"kind": "url", "url": f"{web.url}/{name}"}
            case.add(name[:3], source, size=len(stored.data), sha256=stored.sha256)

        def pwrite(descriptor: int, data: bytes, offset: int) -> int:
            if Path(f"/proc/self/fd/{descriptor}").readlink().name == "one.bin":
                assert held.held.wait(PATIENCE)
                raise OSError(28, "No space left on device")
            return real(descriptor, data, offset)

        def release() -> None:
            path = case.volume / ".hearmeman/local/models.json"
            with contextlib.suppress(TimeoutError):  # Then the test fails by what it finds.
                wait_for(lambda: path.exists() and state_of(case, "one") == "failed", "the full disk")
                held.release.set()
                # Until the late answer has been sent, and so met whoever asked for it.
                wait_for(lambda: len(answers(web)) > 1 and all(one.over for one in answers(web)), "the late answer")
            held.release.set()
            other.release.set()

        thread = threading.Thread(target=release)
        thread.start()
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", pwrite)
            done = case.run("fetch")
        thread.join()
    assert done.code == 75, done.err
    assert "1 of 2 files are missing, 1 are present" in done.err
    assert "the disk is full" in done.err
    rows = case.state()["files"]
    assert (rows["one"]["state"], rows["two"]["state"]) == ("failed", "present")


def test_a_hash_that_stands_still_ends_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network volume that hangs: all bytes are there, and nothing moves any more."""
    stored = Stored(hashlib.shake_128(b"still").digest(5 * MIB))
    case = Case(tmp_path, {"DOWNLOAD_TIMEOUT": "1"})
    go = threading.Event()
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        go.wait(60)
        return real(descriptor, buffers, offset)

    with Web({"f.bin": stored}) as web, monkeypatch.context() as patch:
        source = {"kind": "url", "url": f"{web.url}/f.bin"}
        target = case.add("f", source, size=len(stored.data), sha256=stored.sha256)
        patch.setattr(os, "preadv", preadv)
        done = case.run("fetch")
        assert done.code == 75, done.err
        assert "checkpoints/f.bin: nothing arrived for" in done.err
        assert not target.exists()
        go.set()


def test_html_for_one_range_leaves_a_right_file_or_none(tmp_path: Path) -> None:
    """What brought a failed file back before; now it costs one link."""
    stored = Stored(hashlib.shake_128(b"html").digest(24 * MIB))
    with Web({"f.bin": stored}) as web:
        for number in range(5):
            case = Case(tmp_path / str(number), {"DOWNLOAD_TIMEOUT": "30", "DOWNLOAD_CONNECTIONS_PER_FILE": "4"})
            case.volume.mkdir()
            web.faults["f.bin"] = Fault("html", times=1, after=number)
            source = {"kind": "url", "url": f"{web.url}/f.bin"}
            target = case.add("f", source, size=len(stored.data), sha256=stored.sha256)
            done = case.run("fetch")
            assert done.code == 0, done.err
            assert target.read_bytes() == stored.data
            assert case.state()["files"]["f"]["state"] == "present"


def test_what_a_slow_connection_has_left_is_asked_for_on_another(tmp_path: Path) -> None:
    """One connection of four falls to 4 KB/s: alone it would hold the file up for twenty minutes."""
    stored = Stored(hashlib.shake_128(b"slow").digest(24 * MIB))
    case = Case(tmp_path, {"DOWNLOAD_TIMEOUT": "600", "DOWNLOAD_CONNECTIONS_PER_FILE": "4"})
    with Web({"f.bin": stored}) as web:
        web.rate = 4 * MIB
        web.faults["f.bin"] = Fault("crawl", times=1, after=2, at=0, rate=4096)
        source = {"kind": "url", "url": f"{web.url}/f.bin"}
        target = case.add("f", source, size=len(stored.data), sha256=stored.sha256)
        began = time.monotonic()
        done = case.run("fetch")
        seconds = time.monotonic() - began
        sent = web.sent("/f.bin")
    assert done.code == 0, done.err
    assert "model.slowed" in done.err
    assert target.read_bytes() == stored.data
    assert seconds < 300
    assert sent < 1.2 * len(stored.data), "bytes that have arrived are not asked for again"
