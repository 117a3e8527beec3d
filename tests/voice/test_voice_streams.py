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
import openai
import pytest

from hearmeman_voice import chatterbox_api, reply, xtts_api
from hearmeman_voice.engine import Spec
from hearmeman_voice.speaker import Speaker
from hearmeman_voice.voices import VoiceStore
from support.held_engine import ENGINE, Hand
from support.voice import PATIENCE, in_thread, wait_for

TWO = "This is the first sentence, and it is long enough to be one. This is the second sentence, and so is this one."
BLOCKS = 3
"""Blocks of each of its two chunks."""


@dataclass(frozen=True)
class Held:
    """An API before an engine that the test holds."""

    url: str
    hand: Hand
    speaker: Speaker

    def state(self) -> dict[str, Any]:
        """What /health says."""
        found: dict[str, Any] = httpx2.get(f"{self.url}/health", timeout=PATIENCE).json()
        return found

    def wait_until_idle(self) -> None:
        """Wait until nothing is spoken and nobody waits."""
        wait_for(lambda: not self.state()["in_flight"] and not self.state()["waiting"], "the engine is idle")

    def measure(self, name: str) -> float:
        """One of /metrics."""
        lines = httpx2.get(f"{self.url}/metrics", timeout=PATIENCE).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@contextlib.contextmanager
def held(api: str, folder: Path, queue_length: int = 4, loaded: bool = True, **options: Any) -> Iterator[Held]:
    """Serve an API; `options` are the engine's."""
    hand = Hand(folder)
    if loaded:
        hand.let_load()
    speaker = Speaker(Spec(ENGINE, folder, options={"blocks": BLOCKS, **options}), queue_length=queue_length)
    store = VoiceStore(folder / "voices", None, speaker.engine.voices)
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


@pytest.fixture(params=["chatterbox", "xtts"])
def api(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Held]:
    """Each API before a held engine."""
    with held(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def chatter(tmp_path: Path) -> Iterator[Held]:
    """The Chatterbox API before a held engine."""
    with held("chatterbox", tmp_path) as found:
        yield found


@contextlib.contextmanager
def speaking(api: Held, path: str = "/v1/audio/speech", **body: Any) -> Iterator[httpx2.Response]:
    """Ask for speech and give the answer as soon as it begins."""
    with httpx2.stream("POST", api.url + path, json={"input": TWO, **body}, timeout=PATIENCE) as answer:
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


def test_an_xtts_stream_begins_with_its_header(tmp_path: Path) -> None:
    with held("xtts", tmp_path) as api:
        api.hand.allow(1)
        url = f"{api.url}/tts_stream/"
        with httpx2.stream(
            "GET", url, params={"text": TWO, "speaker_wav": "nobody", "language": "en"}, timeout=PATIENCE
        ) as answer:
            pieces = answer.iter_raw()
            assert next(pieces)[:4] == b"RIFF"
            assert len(api.hand.made()) == 1
            api.hand.allow(2 * BLOCKS - 1)


@pytest.mark.parametrize(
    "body", [{}, {"stream_format": "sse"}, {"response_format": "mp3"}], ids=["audio", "sse", "mp3"]
)
def test_who_hangs_up_in_the_middle_frees_the_engine(api: Held, body: dict[str, str]) -> None:
    api.hand.allow(BLOCKS)
    with speaking(api, **body) as answer:
        pieces = answer.iter_raw()
        assert next(pieces)
        assert api.state()["in_flight"] == 1
    api.wait_until_idle()
    assert api.measure("voice_cancelled_total") == 1
    made = len(api.hand.made())
    assert made <= BLOCKS
    # It is well, and speaks the next one.
    api.hand.allow(100)
    assert (
        httpx2.post(f"{api.url}/v1/audio/speech", json={"input": "Next one, please."}, timeout=PATIENCE).content[:4]
        == b"RIFF"
    )


def test_who_hangs_up_before_the_first_byte_frees_the_engine_and_the_queue(api: Held) -> None:
    body = json.dumps({"input": TWO}).encode()
    where = urlsplit(api.url)
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
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
    assert api.measure("voice_cancelled_total") == 3


def test_a_full_queue_refuses_with_a_small_wait_and_openais_client_comes_again(tmp_path: Path) -> None:
    with held("chatterbox", tmp_path, queue_length=1) as api, concurrent.futures.ThreadPoolExecutor(3) as pool:

        def say() -> httpx2.Response:
            return httpx2.post(f"{api.url}/v1/audio/speech", json={"input": "Hello there, you."}, timeout=PATIENCE)

        first = pool.submit(say)
        wait_for(lambda: api.state()["in_flight"] == 1, "one is spoken")
        second = pool.submit(say)
        wait_for(lambda: api.state()["waiting"] == 1, "one waits")
        refused = say()
        assert refused.status_code == 429
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert "x-should-retry" not in refused.headers
        client = openai.OpenAI(base_url=f"{api.url}/v1", api_key="any", timeout=PATIENCE, max_retries=20)
        third = pool.submit(lambda: client.audio.speech.create(model="tts-1", voice="alloy", input="Hello there, you."))
        wait_for(lambda: api.measure('voice_refusals_total{code="queue_full"}') >= 2, "it was refused too")
        api.hand.allow(100)
        assert first.result(PATIENCE).content == second.result(PATIENCE).content
        assert third.result(PATIENCE).content[:4] == b"RIFF"


def test_while_it_loads_it_lives_and_is_not_ready(tmp_path: Path) -> None:
    with held("chatterbox", tmp_path, loaded=False) as api:
        health = httpx2.get(f"{api.url}/health", timeout=PATIENCE)
        assert health.status_code == 200
        assert health.json()["status"] == "loading"
        assert httpx2.get(f"{api.url}/ping", timeout=PATIENCE).status_code == 204
        for answer in (
            httpx2.get(f"{api.url}/ready", timeout=PATIENCE),
            httpx2.post(f"{api.url}/v1/audio/speech", json={"input": "Hello."}, timeout=PATIENCE),
        ):
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "not_ready"
            assert "load" in answer.json()["error"]["message"]
            assert int(answer.headers["retry-after"]) <= 30
        assert httpx2.get(f"{api.url}/voices", timeout=PATIENCE).status_code == 200
        api.hand.let_load()
        wait_for(lambda: httpx2.get(f"{api.url}/ping").status_code == 200, "it is ready")
        assert httpx2.get(f"{api.url}/ready", timeout=PATIENCE).json()["status"] == "ready"


def test_an_engine_that_fails_before_the_first_byte_is_an_error(tmp_path: Path) -> None:
    with held("chatterbox", tmp_path, fails_at=0) as api:
        api.hand.allow(1)
        answer = httpx2.post(f"{api.url}/v1/audio/speech", json={"input": TWO}, timeout=PATIENCE)
        assert answer.status_code == 500
        assert answer.json()["error"]["type"] == "server_error"
        assert "no mind to go on" in answer.json()["error"]["message"]


def test_an_engine_that_fails_in_mid_stream_cuts_the_audio(tmp_path: Path) -> None:
    with held("chatterbox", tmp_path, fails_at=2) as api:
        api.hand.allow(BLOCKS)
        with pytest.raises(httpx2.RemoteProtocolError), speaking(api, response_format="pcm") as answer:
            assert answer.status_code == 200
            answer.read()
        assert api.state()["status"] == "ready"


def test_an_engine_that_fails_in_mid_stream_is_an_event(tmp_path: Path) -> None:
    with held("chatterbox", tmp_path, fails_at=2) as api:
        api.hand.allow(BLOCKS)
        with speaking(api, response_format="pcm", stream_format="sse") as answer:
            lines = [line for line in answer.iter_lines() if line]
    assert "data: [DONE]" not in lines
    last = json.loads(lines[-1].removeprefix("data: "))
    assert last["type"] == "error"
    assert set(last["error"]) == {"message", "type", "param", "code"}


def test_an_engine_that_fails_in_mid_file_leaves_no_file(tmp_path: Path) -> None:
    with held("xtts", tmp_path, fails_at=2) as api:
        api.hand.allow(BLOCKS)
        body = {"text": TWO, "speaker_wav": "nobody", "language": "en", "file_name_or_path": "half.wav"}
        answer = httpx2.post(f"{api.url}/tts_to_file", json=body, timeout=PATIENCE)
        assert answer.status_code == 500
        assert list((tmp_path / "output").iterdir()) == []


def test_a_file_is_whole_and_never_over_another(tmp_path: Path) -> None:
    with held("xtts", tmp_path) as api:
        api.hand.allow(100)
        body = {"text": TWO, "speaker_wav": "nobody", "language": "en", "file_name_or_path": "line.wav"}
        paths = [
            Path(httpx2.post(f"{api.url}/tts_to_file", json=body, timeout=PATIENCE).json()["output_path"])
            for _ in range(2)
        ]
    assert [path.name for path in paths] == ["line.wav", "line-2.wav"]
    for path in paths:
        data = path.read_bytes()
        assert int.from_bytes(data[40:44], "little") == len(data) - 44 > 0
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == ["line-2.wav", "line.wav"]


@pytest.mark.parametrize(
    "body", [{}, {"response_format": "mp3"}, {"stream_format": "sse"}], ids=["audio", "mp3", "sse"]
)
def test_a_byte_is_sent_before_a_proxy_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: dict[str, str]
) -> None:
    monkeypatch.setattr(reply, "PATIENCE", 0.2)
    with held("chatterbox", tmp_path) as api, speaking(api, **body) as answer:
        pieces = answer.iter_raw()
        assert next(pieces)
        assert api.hand.made() == []
        api.hand.allow(100)
        assert b"".join(pieces)


def test_a_file_s_answer_is_json_though_it_was_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply, "PATIENCE", 0.2)
    with held("xtts", tmp_path) as api:
        body = {"text": TWO, "speaker_wav": "nobody", "language": "en", "file_name_or_path": "late.wav"}
        with httpx2.stream("POST", f"{api.url}/tts_to_file", json=body, timeout=PATIENCE) as answer:
            pieces = answer.iter_bytes()
            begun = next(pieces)
            api.hand.allow(100)
            assert json.loads(begun + b"".join(pieces))["output_path"].endswith("late.wav")
