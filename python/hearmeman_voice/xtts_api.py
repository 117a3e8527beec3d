"""XTTS' API: the addresses of xtts-api-server, which SillyTavern's XTTS provider uses, and OpenAI's as well."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Body, FastAPI, Query
from fastapi import Request as HttpRequest
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp

from hearmeman_voice import files, reply, served
from hearmeman_voice.engine import Request, Voice
from hearmeman_voice.errors import ApiError
from hearmeman_voice.metrics import Metrics
from hearmeman_voice.openai import Lenient, Manner, Text, voice_of_file
from hearmeman_voice.saved import Saved, inside
from hearmeman_voice.served import AUDIO, REFUSALS, Served
from hearmeman_voice.speaker import Speaker
from hearmeman_voice.voices import VoiceStore
from hearmeman_voice.voices_api import library

MOST = 10_000
"""Characters in one text: xtts-api-server has no limit, and a long chapter is sent in one piece."""

LANGUAGES = {
    "Arabic": "ar", "Brazilian Portuguese": "pt", "Chinese": "zh-cn", "Czech": "cs", "Dutch": "nl", "English": "en",
    "French": "fr", "German": "de", "Hindi": "hi", "Hungarian": "hu", "Italian": "it", "Japanese": "ja", "Korean": "ko",
    "Polish": "pl", "Russian": "ru", "Spanish": "es", "Turkish": "tr",
}  # fmt: skip
"""XTTS v2's languages, with xtts-api-server's names."""

_ABOUT = """Text to speech in 17 languages, with xtts-api-server's addresses, with or without a slash at the end.

    curl -X POST http://localhost:8020/tts_to_audio/ -H "Content-Type: application/json" \\
      -d '{"text":"Hello world","speaker_wav":"female","language":"en"}' -o output.wav
"""


class Asked(Lenient):
    """A request to xtts-api-server."""

    text: Text = Field(description=f"the text to speak: 1 to {MOST} characters", examples=["Hello world"])
    speaker_wav: str = Field("female", description="a speaker from /speakers_list", examples=["female"])
    language: str = Field("en", description="a code from /languages", examples=["en"])
    save_path: str | None = Field(None, description="accepted, but ignored: /tts_to_file saves files")


class AskedFile(Asked):
    """The same, for a file."""

    file_name_or_path: str = Field(
        "output.wav", description="a name in the output folder; its suffix sets the format", examples=["hello.wav"]
    )


class TtsSettings(Lenient):
    """How everything is spoken from now on; anything missing stays as it is. Numbers may be strings, as sliders send
    them.
    """

    temperature: float = Field(0.75, ge=0.01, le=5.0, description="values below 0.05 count as 0.05")
    speed: float = Field(1.0, ge=0.25, le=4.0)
    length_penalty: float = Field(1.0, ge=0.0, le=10.0)
    repetition_penalty: float = Field(5.0, ge=0.1, le=20.0)
    top_p: float = Field(0.85, ge=0.0, le=1.0)
    top_k: int = Field(50, ge=0, le=1000)
    enable_text_splitting: bool = Field(True, description="accepted; long text is always split")
    stream_chunk_size: int = Field(100, ge=1, le=1000, description="accepted; blocks are sent as they are made")


class Folder(BaseModel):
    """Where speakers are."""

    speaker_folder: str


class Output(BaseModel):
    """Where files go."""

    output_folder: str


class Model(BaseModel):
    """Which model."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str


def app(speaker: Speaker, store: VoiceStore, output: Path, models: Path, origins: Sequence[str] = ()) -> ASGIApp:
    """Make the API; files go into `output`, models are in `models`, and `origins` are web pages on other addresses that
    may use it.
    """
    files.sweep(output, time.time())
    names = tuple(dict.fromkeys(("xtts", "xtts_v2", "main", speaker.engine.name)))
    here = Served("xtts", names, speaker, store, Metrics("xtts", speaker.state))
    made = FastAPI(title="XTTS", description=_ABOUT, version=speaker.engine.version, **served.APP)
    router = APIRouter()
    router.include_router(served.common(here))
    router.include_router(library(here))
    router.include_router(_own(here, output, models))

    @made.get("/", tags=["state"])
    def root() -> dict[str, str]:
        """Shows that the server is there."""
        return {"service": "XTTS", "engine": speaker.engine.name, "docs": "/docs", "health": "/health"}

    return served.finish(made, here, router, ("/voices",), origins)


class _Spoken:
    """Answers XTTS requests with the current settings."""

    def __init__(self, here: Served, output: Path) -> None:
        self.here, self.settings, self.base, self.output = here, TtsSettings.model_validate({}), output, output

    def request(self, asked: Asked) -> Request:
        if len(asked.text) > MOST:
            raise ApiError(
                400,
                f"text: {len(asked.text)} characters are more than a request may have ({MOST}); send them in parts",
                param="text",
                code="string_above_max_length",
            )
        voice = self.here.voice(voice_of_file(asked.speaker_wav), "speaker_wav")
        now = self.settings
        manner = Manner.model_construct(
            temperature=max(now.temperature, 0.05),
            repetition_penalty=max(now.repetition_penalty, 1.0),
            length_penalty=now.length_penalty,
            top_p=now.top_p or None,
            top_k=now.top_k or None,
        )
        return self.here.request(asked.text, voice, asked.language, manner, now.speed, "text")

    def answer(self, asked: Asked, out: reply.Out) -> reply.Spoken:
        rate = self.here.speaker.engine.rate
        blocks = self.here.speaker.speak(self.request(asked))
        return reply.Spoken(blocks, out, self.here.metrics, len(asked.text), rate, "text")

    def audio(self, asked: Asked, whole: bool) -> reply.Spoken:
        return self.answer(asked, reply.Audio("wav", self.here.speaker.engine.rate, whole))


def _own(here: Served, output: Path, models: Path) -> APIRouter:
    router = APIRouter()
    spoken = _Spoken(here, output)
    answers: dict[str, Any] = {"response_class": Response, "responses": {**AUDIO, **REFUSALS}, "tags": ["speech"]}

    @router.post("/tts_to_audio", **answers)
    def tts_to_audio(asked: Asked) -> Response:
        """Speak a text and answer with the complete file; one that takes over a minute is sent while it is made."""
        return spoken.audio(asked, whole=True)

    @router.post("/tts_stream", **answers)
    def post_stream(asked: Asked) -> Response:
        """Speak a text as it is made."""
        return spoken.audio(asked, whole=False)

    @router.get("/tts_stream", **answers)
    def get_stream(asked: Annotated[Asked, Query()]) -> Response:
        """The same, at an address that an audio element can play."""
        return spoken.audio(asked, whole=False)

    @router.post("/tts_to_file", tags=["speech"], responses=REFUSALS)
    def tts_to_file(asked: AskedFile) -> Any:
        """Speak a text into a file in the output folder. An existing file is kept: the new one gets a number."""
        target = inside(spoken.output, asked.file_name_or_path)
        return spoken.answer(asked, Saved(target, here.speaker.engine.rate))

    @router.get("/speakers_list", tags=["voices"])
    def speakers_list() -> list[str]:
        """The names of the speakers."""
        return [voice.id for voice in here.store.list()]

    @router.get("/speakers", tags=["voices"])
    def speakers(request: HttpRequest) -> list[dict[str, str]]:
        """The speakers, for SillyTavern; the preview of one without a recording says its name."""
        base = str(request.base_url).rstrip("/")

        def heard(voice: Voice) -> str:
            if voice.clip:
                return f"{base}/sample/{quote(voice.id)}.wav"
            return f"{base}/tts_stream?{urlencode({'text': voice.id, 'speaker_wav': voice.id, 'language': 'en'})}"

        return [{"name": voice.id, "voice_id": voice.id, "preview_url": heard(voice)} for voice in here.store.list()]

    @router.get("/sample/{file:path}", tags=["voices"], response_class=FileResponse, responses={404: REFUSALS[400]})
    def sample(file: str) -> Response:
        """A speaker's recording."""
        try:
            voice = here.voice(voice_of_file(file))
        except ApiError:
            voice = None
        if voice is None or voice.clip is None:
            raise ApiError(404, f"there is no recording {file[:100]!r}; /speakers names them", code="not_found")
        return FileResponse(voice.clip, media_type="audio/wav")

    @router.get("/languages", tags=["models"])
    def languages() -> dict[str, dict[str, str]]:
        """The loaded model's languages: names and codes."""
        known = here.speaker.engine.languages
        return {
            "languages": {
                name: code for name, code in LANGUAGES.items() if code in known or code.partition("-")[0] in known
            }
        }

    @router.get("/get_folders", tags=["settings"])
    def get_folders() -> dict[str, str]:
        """The folders of the speakers and of the output."""
        return {
            "speaker_folder": str(here.store.folder),
            "output_folder": str(spoken.output),
            "model_folder": str(models),
        }

    @router.post("/set_output", tags=["settings"], responses={400: REFUSALS[400]})
    def set_output(asked: Output) -> dict[str, str]:
        """From now on, save into this folder inside the output folder."""
        found = _folder(spoken.base, asked.output_folder)
        if found is None:
            raise ApiError(
                400,
                f"output_folder: name {spoken.base} or an existing folder inside it",
                param="output_folder",
                code="invalid_value",
            )
        spoken.output = found
        return {"message": f"Output folder set to {asked.output_folder}"}

    @router.post("/set_speaker_folder", tags=["settings"], responses={400: REFUSALS[400]})
    def set_speaker_folder(asked: Folder) -> dict[str, str]:
        """Confirm the speakers' folder; both APIs share it, and it cannot change while they run."""
        if _folder(here.store.folder, asked.speaker_folder) != here.store.folder.resolve():
            raise ApiError(
                400,
                f"speaker_folder: the speakers are in {here.store.folder}; upload others with POST /voices",
                param="speaker_folder",
                code="invalid_value",
            )
        return {"message": f"Speaker folder set to {asked.speaker_folder}"}

    @router.get("/get_models_list", tags=["models"])
    def models_list() -> list[str]:
        """The names of the loaded model."""
        return list(here.models)

    @router.post("/switch_model", tags=["models"], responses={400: REFUSALS[400]})
    def switch_model(asked: Model) -> dict[str, str]:
        """Confirm the loaded model; there is one per process."""
        if asked.model_name not in here.models:
            raise ApiError(
                400,
                f"model_name: {asked.model_name[:100]!r} is not loaded; this server has {', '.join(here.models)}",
                param="model_name",
                code="model_not_found",
            )
        return {"message": f"Model switched to {asked.model_name}"}

    @router.get("/get_tts_settings", tags=["settings"])
    def get_settings() -> TtsSettings:
        """The current settings."""
        return spoken.settings

    @router.post("/set_tts_settings", tags=["settings"], responses={400: REFUSALS[400]})
    def set_settings(asked: Annotated[TtsSettings, Body()]) -> dict[str, str]:
        """Change the settings, until the process ends."""
        given = {name: getattr(asked, name) for name in asked.model_fields_set}
        spoken.settings = spoken.settings.model_copy(update=given)
        return {"message": "Settings successfully applied"}

    return router


def _folder(base: Path, name: str) -> Path | None:
    """A folder inside `base`, or `base` itself, by relative or absolute path; None if it is elsewhere or does not exist."""
    try:
        base, found = base.resolve(), (base / name).resolve()
        # The base itself is made with the first file in it.
        if found == base or (found.is_relative_to(base) and found.is_dir()):
            return found
    except (OSError, ValueError):
        pass
    return None
