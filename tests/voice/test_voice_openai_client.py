"""OpenAI's own client against both APIs."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Literal

import av
import numpy as np
import pytest

from support.voice import CLIENT, openai_client

if TYPE_CHECKING:
    import openai

TEXT = "The first sentence is short. The second one is a little longer than that. And this is the last of them."
FORMATS: list[Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]] = ["mp3", "opus", "aac", "flac", "wav", "pcm"]


@pytest.fixture(params=["chatterbox", "xtts"])
def client(request: pytest.FixtureRequest) -> openai.OpenAI:
    """A client of each API."""
    return openai_client(request.getfixturevalue(request.param))


def samples(data: bytes, format: str) -> int:
    """Count what a decoder makes of it, at 24 kHz."""
    if format == "pcm":
        return len(data) // 2
    with av.open(io.BytesIO(data), "r") as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=24000)
        frames = [ready for frame in container.decode(audio=0) for ready in resampler.resample(frame)]
        return sum(frame.samples for frame in frames + resampler.resample(None))


@pytest.fixture
def chatty(chatterbox: str) -> openai.OpenAI:
    """A client of the Chatterbox API alone; what makes the sound is the same in both."""
    return openai_client(chatterbox)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_holds_all_that_was_said(
    chatty: openai.OpenAI, format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
) -> None:
    said = chatty.audio.speech.create(
        model="tts-1", voice="alloy", input=TEXT, response_format="pcm", extra_body={"seed": 3}
    )
    made = chatty.audio.speech.create(
        model="tts-1", voice="alloy", input=TEXT, response_format=format, extra_body={"seed": 3}
    )
    whole = samples(said.content, "pcm")
    assert whole > 3 * 24000
    # A codec fills up its last frame and has a delay; none is over a tenth of a second.
    slack = 0 if format in ("pcm", "wav", "flac") else 2400
    assert 0 <= samples(made.content, format) - whole <= slack


@pytest.mark.parametrize("format", ["wav", "mp3"])
def test_events_carry_the_same_file(client: openai.OpenAI, format: Literal["wav", "mp3"]) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=TEXT, response_format=format, stream_format="sse", extra_body={"seed": 3}
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert events[-1]["type"] == "speech.audio.done"
    assert events[-1]["usage"]["input_tokens"] == len(TEXT)
    file = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    plain = client.audio.speech.with_raw_response.create(
        model="tts-1", voice="alloy", input=TEXT, response_format=format, extra_body={"seed": 3}
    )
    assert samples(file, format) == samples(plain.content, format)


def test_a_short_wav_says_its_true_length(client: openai.OpenAI) -> None:
    data = client.audio.speech.create(model="tts-1", voice="alloy", input="Hello world.", response_format="wav").content
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    assert int.from_bytes(data[40:44], "little") == len(data) - 44


def test_the_same_seed_says_the_same_and_speed_changes_the_length(client: openai.OpenAI) -> None:
    def say(speed: float) -> bytes:
        return client.audio.speech.create(
            model="tts-1", voice="alloy", input=TEXT, response_format="pcm", speed=speed, extra_body={"seed": 7}
        ).content

    one, again, fast = say(1.0), say(1.0), say(2.0)
    assert one == again
    assert np.frombuffer(one, "<i2").std() > 100
    assert len(fast) < 0.7 * len(one)


def test_a_voice_may_be_an_object(client: openai.OpenAI) -> None:
    assert client.audio.speech.create(model="tts-1", voice={"id": "female"}, input="Hello.").content


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert "tts-1" in [model.id for model in client.models.list()]
    assert client.models.retrieve("tts-1").id == "tts-1"


def test_openais_client_may_send_what_openai_allows(client: openai.OpenAI) -> None:
    import openai

    # The words of one text, so that the answer is soon here: what is counted is characters.
    text = "Yes." + " " * (4096 - 4)
    assert client.audio.speech.create(model="tts-1", voice="alloy", input=text).content
    with pytest.raises(openai.BadRequestError):
        client.audio.speech.create(model="tts-1", voice="alloy", input=text + " ")


def test_others_may_send_3000_characters(chatterbox: str) -> None:
    for characters, status in ((3000, 200), (3001, 400)):
        answer = CLIENT.post(
            f"{chatterbox}/v1/audio/speech", json={"input": "Yes." + " " * (characters - 4)}, timeout=120
        )
        assert answer.status_code == status
    assert answer.json()["error"]["code"] == "string_above_max_length"


def test_errors_are_the_clients_own_classes(client: openai.OpenAI) -> None:
    import openai

    with pytest.raises(openai.BadRequestError) as voice:
        client.audio.speech.create(model="tts-1", voice="nobody", input="Hello.")
    assert voice.value.param == "voice"
    assert voice.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError) as model:
        client.audio.speech.create(model="no-such-model", voice="alloy", input="Hello.")
    assert model.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as speed:
        client.audio.speech.create(model="tts-1", voice="alloy", input="Hello.", speed=9)
    assert speed.value.param == "speed"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")
