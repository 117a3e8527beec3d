"""Streams that stream, queues that end, clients that hang up, engines that fail: an engine whose every block the test allows."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from hearmeman_voice import chatterbox_api, reply, xtts_api
from hearmeman_voice.engine import Spec
from hearmeman_voice.speaker import Speaker
from hearmeman_voice.voices import VoiceStore
from support.held_engine import BLOCKS, ENGINE, Hand
from support.voice import CLIENT, in_thread, openai_client
from support.waiting import PATIENCE, wait_for

TWO = "This is the first sentence, and it is long enough to be one. This is the second sentence, and so is this one."
"""Two chunks, each of BLOCKS blocks."""


@dataclass(frozen=True)
class Held:
    """An API before an engine that the test holds."""

    url: str
    hand: Hand
    speaker: Speaker

    def state(self) -> dict[str, Any]:
        """What /health says."""
        found: dict[str, Any] = CLIENT.get(f"{self.url}/health").json()
        return found

    def wait_until_idle(self) -> None:
        """Wait until nothing is spoken and nobody waits."""
        wait_for(lambda: not self.state()["in_flight"] and not self.state()["waiting"], "the engine is idle")

    def measure(self, name: str) -> float:
        """One of /metrics."""
        lines = CLIENT.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@contextlib.contextmanager
def held(api: str, folder: Path, queue_length: int = 4, loaded: bool = True) -> Iterator[Held]:
    """Serve an API."""
    hand = Hand(folder)
    if loaded:
        hand.let_load()
    speaker = Speaker(Spec(ENGINE, folder), queue_length=queue_length)
    store = VoiceStore(folder / "voices", None, lambda: speaker.engine.voices)
    if api == "xtts":
        app = xtts_api.app(speaker, store, folder / "output", folder)
    else:
        app = chatterbox_api.app(speaker, store)
    speaker.start()
    try:
        with in_thread(app) as url:
            if loaded:
                wait_for(lambda: bool(speaker.state()["loaded"]), "the engine is loaded")
            yield Held(url, hand, speaker)
    finally:
        hand.let_load()
        hand.allow(10_000)
        speaker.close()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Held]]:
    """Each API before a held engine, for all tests that need nothing else."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(held(name, tmp_path_factory.mktemp(name))) for name in ("chatterbox", "xtts")}


@contextlib.contextmanager
def anew(api: Held) -> Iterator[Held]:
    """Give an idle API, and leave it so."""
    api.hand.begin_anew()
    yield api
    api.hand.allow(10_000)
    api.wait_until_idle()


@pytest.fixture(params=["chatterbox", "xtts"])
def api(both: dict[str, Held], request: pytest.FixtureRequest) -> Iterator[Held]:
    """Each API."""
    with anew(both[request.param]) as found:
        yield found


@pytest.fixture
def chatter(both: dict[str, Held]) -> Iterator[Held]:
    """The Chatterbox API."""
    with anew(both["chatterbox"]) as found:
        yield found


@pytest.fixture
def xtts_held(both: dict[str, Held]) -> Iterator[Held]:
    """The XTTS API."""
    with anew(both["xtts"]) as found:
        yield found


@contextlib.contextmanager
def speaking(api: Held, path: str = "/v1/audio/speech", **body: Any) -> Iterator[httpx2.Response]:
    """Ask for speech and give the answer as soon as it begins."""
    with CLIENT.stream("POST", api.url + path, json={"input": TWO, **body}) as answer:
        yield answer


@pytest.mark.parametrize("format", ["wav", "mp3", "flac", "opus", "aac", "pcm"])
def test_the_first_sentence_leaves_while_the_second_is_not_made(chatter: Held, format: str) -> None:
    chatter.hand.allow(BLOCKS)
    with speaking(chatter, response_format=format) as answer:
        assert answer.status_code == 200
        pieces = answer.iter_raw()
        assert next(pieces)
        assert all("first" in one["text"] for one in chatter.hand.made())
        chatter.hand.allow(BLOCKS)
        rest = b"".join(pieces)
    assert rest
    assert [one["text"].split()[3] for one in chatter.hand.made()] == ["first"] * BLOCKS + ["second"] * BLOCKS


def test_events_come_one_by_one(api: Held) -> None:
    api.hand.allow(1)
    with speaking(api, response_format="pcm", stream_format="sse") as answer:
        lines = (line for line in answer.iter_lines() if line)
        first = json.loads(next(lines).removeprefix("data: "))
        assert first["type"] == "speech.audio.delta"
        assert base64.b64decode(first["audio"])
        assert len(api.hand.made()) <= 1
        api.hand.allow(2 * BLOCKS - 1)
        assert list(lines)[-1] == "data: [DONE]"


def test_an_xtts_stream_begins_with_its_header(xtts_held: Held) -> None:
    xtts_held.hand.allow(1)
    url = f"{xtts_held.url}/tts_stream/"
    with CLIENT.stream("GET", url, params={"text": TWO, "speaker_wav": "nobody", "language": "en"}) as answer:
        pieces = answer.iter_raw()
        assert next(pieces)[:4] == b"RIFF"
        assert len(xtts_held.hand.made()) == 1
        xtts_held.hand.allow(2 * BLOCKS - 1)


@pytest.mark.parametrize(
    "body", [{}, {"stream_format": "sse"}, {"response_format": "mp3"}], ids=["audio", "sse", "mp3"]
)
def test_who_hangs_up_in_the_middle_frees_the_engine(api: Held, body: dict[str, str]) -> None:
    before = api.measure("voice_cancelled_total")
    api.hand.allow(BLOCKS)
    with speaking(api, **body) as answer:
        pieces = answer.iter_raw()
        assert next(pieces)
        assert api.state()["in_flight"] == 1
    api.wait_until_idle()
    wait_for(lambda: api.measure("voice_cancelled_total") == before + 1, "it to be counted")
    made = len(api.hand.made())
    assert made <= BLOCKS
    # It is well, and speaks the next one.
    api.hand.allow(100)
    assert CLIENT.post(f"{api.url}/v1/audio/speech", json={"input": "Next one, please."}).content[:4] == b"RIFF"


def test_who_hangs_up_before_the_first_byte_frees_the_engine_and_the_queue(api: Held) -> None:
    body = json.dumps({"input": TWO}).encode()
    where = urlsplit(api.url)
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    before = api.measure("voice_cancelled_total")
    sockets = []
    for number in range(3):
        one = socket.create_connection((where.hostname, where.port))
        one.sendall(head.encode() + body)
        sockets.append(one)
        wait_for(lambda number=number: api.state()["in_flight"] + api.state()["waiting"] == number + 1, "it is taken")  # type: ignore[misc]
    for one in sockets:
        one.close()
    api.wait_until_idle()
    assert api.hand.made() == []
    wait_for(lambda: api.measure("voice_cancelled_total") == before + 3, "all to be counted")


def test_a_full_queue_refuses_with_a_small_wait_and_openais_client_comes_again(tmp_path: Path) -> None:
    with held("chatterbox", tmp_path, queue_length=1) as api, concurrent.futures.ThreadPoolExecutor(3) as pool:

        def say() -> httpx2.Response:
            return CLIENT.post(f"{api.url}/v1/audio/speech", json={"input": "Hello there, you."})

        first = pool.submit(say)
        wait_for(lambda: api.state()["in_flight"] == 1, "one is spoken")
        second = pool.submit(say)
        wait_for(lambda: api.state()["waiting"] == 1, "one waits")
        refused = say()
        assert refused.status_code == 429
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert "x-should-retry" not in refused.headers
        client = openai_client(api.url, retries=20)
        third = pool.submit(lambda: client.audio.speech.create(model="tts-1", voice="alloy", input="Hello there, you."))
        wait_for(lambda: api.measure('voice_refusals_total{code="queue_full"}') >= 2, "it was refused too")
        api.hand.allow(100)
        assert first.result(PATIENCE).content == second.result(PATIENCE).content
        assert third.result(PATIENCE).content[:4] == b"RIFF"


def test_while_it_loads_it_lives_and_is_not_ready(tmp_path: Path) -> None:
    with held("chatterbox", tmp_path, loaded=False) as api:
        health = CLIENT.get(f"{api.url}/health")
        assert health.status_code == 200
        assert health.json()["status"] == "loading"
        assert CLIENT.get(f"{api.url}/ping").status_code == 204
        for answer in (
            CLIENT.get(f"{api.url}/ready"),
            CLIENT.post(f"{api.url}/v1/audio/speech", json={"input": "Hello."}),
        ):
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "not_ready"
            assert "load" in answer.json()["error"]["message"]
            assert int(answer.headers["retry-after"]) <= 30
        assert CLIENT.get(f"{api.url}/voices").status_code == 200
        api.hand.let_load()
        wait_for(lambda: CLIENT.get(f"{api.url}/ping").status_code == 200, "it is ready")
        assert CLIENT.get(f"{api.url}/ready").json()["status"] == "ready"


def test_what_somebody_has_to_do_first_is_said_and_not_asked_for_again(tmp_path: Path) -> None:
    hand = Hand(tmp_path)
    hand.missing.write_text("the weights are not there: hearmeman models fetch held")
    with held("chatterbox", tmp_path, loaded=False) as api:
        answer = CLIENT.post(f"{api.url}/v1/audio/speech", json={"input": "Hello."})
        assert answer.status_code == 503
        assert "hearmeman models fetch held" in answer.json()["error"]["message"]
        assert answer.headers["x-should-retry"] == "false"
        assert CLIENT.get(f"{api.url}/health").status_code == 200
        assert CLIENT.get(f"{api.url}/ping").status_code == 204
        hand.missing.unlink()
        hand.let_load()
        wait_for(lambda: CLIENT.get(f"{api.url}/ping").status_code == 200, "it is ready once they are there")


def test_an_engine_that_fails_before_the_first_byte_is_an_error(chatter: Held) -> None:
    chatter.hand.fail_at(0)
    chatter.hand.allow(1)
    answer = CLIENT.post(f"{chatter.url}/v1/audio/speech", json={"input": TWO})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "no mind to go on" in answer.json()["error"]["message"]


def test_an_engine_that_fails_in_mid_stream_cuts_the_audio(chatter: Held) -> None:
    chatter.hand.fail_at(2)
    chatter.hand.allow(BLOCKS)
    with pytest.raises(httpx2.RemoteProtocolError), speaking(chatter, response_format="pcm") as answer:
        assert answer.status_code == 200
        answer.read()
    assert chatter.state()["status"] == "ready"


@pytest.mark.parametrize("path", ["/tts_to_audio", "/tts_stream"])
def test_an_xtts_engine_that_fails_in_mid_stream_gives_no_whole_file(xtts_held: Held, path: str) -> None:
    xtts_held.hand.fail_at(2)
    xtts_held.hand.allow(BLOCKS)
    body = {"text": TWO, "speaker_wav": "nobody", "language": "en"}
    if path == "/tts_stream":
        with pytest.raises(httpx2.RemoteProtocolError):
            CLIENT.post(xtts_held.url + path, json=body)
    else:
        answer = CLIENT.post(xtts_held.url + path, json=body)
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "engine_failed"
    assert xtts_held.state()["status"] == "ready"


def test_an_engine_that_fails_in_mid_stream_is_an_event(chatter: Held) -> None:
    chatter.hand.fail_at(2)
    chatter.hand.allow(BLOCKS)
    with speaking(chatter, response_format="pcm", stream_format="sse") as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert "data: [DONE]" not in lines
    last = json.loads(lines[-1].removeprefix("data: "))
    assert last["type"] == "error"
    assert set(last["error"]) == {"message", "type", "param", "code"}


def files(api: Held) -> list[str]:
    """What is in the output folder."""
    folder = api.hand.folder / "output"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_an_engine_that_fails_in_mid_file_leaves_no_file(xtts_held: Held) -> None:
    xtts_held.hand.fail_at(2)
    xtts_held.hand.allow(BLOCKS)
    before = files(xtts_held)
    body = {"text": TWO, "speaker_wav": "nobody", "language": "en", "file_name_or_path": "half.wav"}
    answer = CLIENT.post(f"{xtts_held.url}/tts_to_file", json=body)
    assert answer.status_code == 500
    assert files(xtts_held) == before


def test_a_file_is_whole_and_never_over_another(xtts_held: Held) -> None:
    xtts_held.hand.allow(100)
    before = files(xtts_held)
    body = {"text": TWO, "speaker_wav": "nobody", "language": "en", "file_name_or_path": "line.wav"}
    answers = [CLIENT.post(f"{xtts_held.url}/tts_to_file", json=body) for _ in range(2)]
    paths = [Path(answer.json()["output_path"]) for answer in answers]
    assert [path.name for path in paths] == ["line.wav", "line-2.wav"]
    for path in paths:
        data = path.read_bytes()
        assert int.from_bytes(data[40:44], "little") == len(data) - 44 > 0
    assert files(xtts_held) == sorted([*before, "line-2.wav", "line.wav"])


@pytest.mark.parametrize(
    "body", [{}, {"response_format": "mp3"}, {"stream_format": "sse"}], ids=["audio", "mp3", "sse"]
)
def test_a_byte_is_sent_before_a_proxy_gives_up(
    chatter: Held, monkeypatch: pytest.MonkeyPatch, body: dict[str, str]
) -> None:
    monkeypatch.setattr(reply, "PATIENCE", 0.2)
    with speaking(chatter, **body) as answer:
        pieces = answer.iter_raw()
        assert next(pieces)
        assert chatter.hand.made() == []
        chatter.hand.allow(100)
        assert b"".join(pieces)


def test_a_file_s_answer_is_json_though_it_was_waited_for(xtts_held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply, "PATIENCE", 0.2)
    body = {"text": TWO, "speaker_wav": "nobody", "language": "en", "file_name_or_path": "late.wav"}
    with CLIENT.stream("POST", f"{xtts_held.url}/tts_to_file", json=body) as answer:
        pieces = answer.iter_bytes()
        begun = next(pieces)
        xtts_held.hand.allow(100)
        assert json.loads(begun + b"".join(pieces))["output_path"].endswith("late.wav")
