"""OpenAI's speech request and answers, as its own client sends and reads them, and the request of devnen's Chatterbox
server.

Sources: OpenAI's API reference, "Create speech"; openai-python 3.57; Chatterbox-TTS-Server, models.py.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15")
"""OpenAI's models: each stands here for the model that is loaded."""

MOST = 3000
"""Characters of one text."""

MOST_BY_OPENAI = 4096
"""Characters in one text from OpenAI's own client, as its documentation allows."""

Format = Literal["wav", "mp3", "flac", "opus", "aac", "pcm"]

Text = Annotated[str, StringConstraints(min_length=1)]


def _blank_is_none(value: object) -> object:
    """Treat what a form or a slider sends for "nothing chosen" as nothing."""
    return None if value == "" else value


Number = Annotated[float | None, BeforeValidator(_blank_is_none)]


class Lenient(BaseModel):
    """A body in which null means "not chosen"."""

    model_config = ConfigDict(allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, body: object) -> object:
        return {key: value for key, value in body.items() if value is not None} if isinstance(body, Mapping) else body


class VoiceId(BaseModel):
    """A voice as an object, as OpenAI's client sends custom voices."""

    id: str


class Manner(Lenient):
    """How to speak. Numbers may be strings; anything missing is the engine's default."""

    temperature: Number = Field(None, ge=0.05, le=5.0, description="how random the speech is", examples=[0.8])
    exaggeration: Number = Field(
        None, ge=0.0, le=2.0, description="0 is subdued, 0.5 natural, 1 and above dramatic (Chatterbox)", examples=[0.5]
    )
    cfg_weight: Number = Field(
        None,
        ge=0.0,
        le=1.0,
        description="0 is slower and freer, 1 faster and closer to the text; use 0 where voice and text differ in language "
        "(Chatterbox)",
        examples=[0.5],
    )
    repetition_penalty: Number = Field(None, ge=1.0, le=20.0)
    top_p: Number = Field(None, gt=0.0, le=1.0)
    top_k: Annotated[int | None, BeforeValidator(_blank_is_none)] = Field(None, ge=0, le=1000)
    length_penalty: Number = Field(None, ge=0.0, le=10.0)
    min_p: Number = Field(None, ge=0.0, le=1.0)
    seed: Annotated[int | None, BeforeValidator(_blank_is_none)] = Field(
        None, ge=-1, le=2**32 - 1, description="the same seed gives the same speech; random if -1 or missing"
    )


class SpeechBody(Manner):
    """OpenAI's request, with what Chatterbox adds to it."""

    input: Text = Field(description=f"the text to speak: 1 to {MOST} characters", examples=["Hello world"])
    model: str | None = Field(None, description="one of /models; default: the loaded one", examples=["tts-1"])
    voice: str | VoiceId = Field("default", description="a voice from /voices, or an alias", examples=["alloy"])
    language: str | None = Field(None, description="one of /languages; default: the voice's own", examples=["en"])
    response_format: Format = Field("wav", description="container of the audio")
    speed: float = Field(1.0, ge=0.25, le=4.0, description="1 is the voice's own pace")
    stream_format: Literal["audio", "sse"] = Field("audio", description="the audio itself, or events that carry it")
    instructions: str | None = Field(None, description="accepted, but these engines ignore it")

    @property
    def voice_name(self) -> str:
        """The voice's name, in whichever form it was given."""
        return self.voice if isinstance(self.voice, str) else self.voice.id


class DevnenBody(Manner):
    """The request of devnen's Chatterbox server, which SillyTavern's Chatterbox provider sends."""

    text: Text = Field(description="the text to speak", examples=["Hello world"])
    voice_mode: Literal["predefined", "clone"] = "predefined"
    predefined_voice_id: str | None = Field(None, description="a voice from /get_predefined_voices")
    reference_audio_filename: str | None = Field(None, description="a voice from /get_reference_files")
    output_format: Format = "wav"
    split_text: bool = Field(True, description="accepted; long text is always split")
    chunk_size: int = Field(120, description="accepted; each engine has its own chunk size")
    temperature: Number = Field(None, ge=0.0, le=5.0)
    speed_factor: float = Field(1.0, ge=0.25, le=4.0)
    language: str | None = None

    def as_speech(self) -> SpeechBody:
        """The same request in OpenAI's format."""
        name = self.reference_audio_filename if self.voice_mode == "clone" else self.predefined_voice_id
        manner = self.model_dump(include=set(Manner.model_fields))
        # SillyTavern's slider goes down to 0, and the sampler would divide by it.
        manner["temperature"] = None if self.temperature is None else max(self.temperature, 0.05)
        return SpeechBody(
            **manner,
            input=self.text,
            voice=voice_of_file(name),
            language=self.language,
            response_format=self.output_format,
            speed=self.speed_factor,
        )


def voice_of_file(name: str | None) -> str:
    """The voice that a file's name stands for: clients of devnen's server say `Emily.wav` for Emily. `S1`, which
    SillyTavern sends before a voice is chosen, is the default voice.
    """
    if not name or name in ("S1", "S2"):
        return "default"
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and suffix.lower() in ("wav", "mp3", "flac", "ogg", "opus", "m4a") else name


def which_body(body: object) -> str:
    """Tell OpenAI's body from devnen's, for `POST /tts`, which takes both."""
    return "devnen" if isinstance(body, Mapping) and "text" in body and "input" not in body else "openai"


def model_list(names: tuple[str, ...], owner: str, created: int) -> dict[str, Any]:
    """List models like OpenAI, and as Open WebUI expects them."""
    data = [{"id": name, "object": "model", "created": created, "owned_by": owner} for name in names]
    return {"object": "list", "data": data, "models": data}


def event(kind: str, **fields: Any) -> bytes:
    """One server-sent event in OpenAI's format."""
    return f"data: {json.dumps({'type': kind, **fields}, separators=(',', ':'))}\n\n".encode()


def delta(audio: bytes) -> bytes:
    """The event for a piece of audio; the pieces joined together are the file."""
    return event("speech.audio.delta", audio=base64.b64encode(audio).decode())


def done(characters: int, seconds: float) -> bytes:
    """The last events; Home Assistant and others wait for `[DONE]`. OpenAI counts tokens; here a character is one
    token, and so is a fiftieth of a second of audio.
    """
    output = round(seconds * 50)
    usage = {"input_tokens": characters, "output_tokens": output, "total_tokens": characters + output}
    return event("speech.audio.done", usage=usage) + b"data: [DONE]\n\n"


def broken_off(error: Mapping[str, Any]) -> bytes:
    """The event for a failure in mid-stream; OpenAI's client raises on an event with `error`."""
    return b"event: error\n" + event("error", error=dict(error))
