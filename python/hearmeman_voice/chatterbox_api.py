"""Chatterbox's API: OpenAI's, the voice library, and what SillyTavern's Chatterbox provider asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Query, Request
from fastapi.responses import Response
from pydantic import Discriminator, Tag
from starlette.types import ASGIApp

from hearmeman_voice import openai, served
from hearmeman_voice.metrics import Metrics
from hearmeman_voice.openai import DevnenBody, SpeechBody
from hearmeman_voice.served import AUDIO, REFUSALS, Served
from hearmeman_voice.speaker import Speaker
from hearmeman_voice.voices import VoiceStore
from hearmeman_voice.voices_api import library

MODELS = ("chatterbox", "chatterbox-multilingual", "chatterbox-english", "chatterbox-turbo")

LANGUAGES = {
    "ar": "Arabic", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "fi": "Finnish",
    "fr": "French", "he": "Hebrew", "hi": "Hindi", "it": "Italian", "ja": "Japanese", "ko": "Korean", "ms": "Malay",
    "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ru": "Russian", "sv": "Swedish",
    "sw": "Swahili", "tr": "Turkish", "zh": "Chinese",
}  # fmt: skip
"""The languages of Chatterbox Multilingual, source: chatterbox 0.1.7, mtl_tts.py."""

_ABOUT = """Text to speech with OpenAI's API and Chatterbox's controls. Every address also works under `/v1`.

    curl http://localhost:8000/v1/audio/speech -H "Content-Type: application/json" \\
      -d '{"input":"Hello world","voice":"default"}' -o hello.wav
"""


def app(speaker: Speaker, store: VoiceStore, origins: Sequence[str] = ()) -> ASGIApp:
    """Make the API; `origins` are web pages on other addresses that may use it."""
    models = tuple(dict.fromkeys(("chatterbox", speaker.engine.name, *MODELS)))
    here = Served("chatterbox", models, speaker, store, Metrics("chatterbox", speaker.state))
    made = FastAPI(title="Chatterbox", description=_ABOUT, version=speaker.engine.version, **served.APP)
    router = APIRouter()
    router.include_router(served.common(here))
    router.include_router(library(here))
    router.include_router(_own(here))

    @made.get("/", tags=["state"])
    def root() -> dict[str, str]:
        """Shows that the server is there, for SillyTavern."""
        return {"service": "Chatterbox", "engine": speaker.engine.name, "docs": "/docs", "health": "/health"}

    return served.finish(made, here, router, ("/voices",), origins)


Either = Annotated[
    Annotated[SpeechBody, Tag("openai")] | Annotated[DevnenBody, Tag("devnen")],
    Discriminator(openai.which_body),
    Body(
        openapi_examples={
            "OpenAI's": {"value": {"input": "Hello world", "voice": "alloy"}},
            "devnen's": {"value": {"text": "Hello world", "voice_mode": "predefined", "predefined_voice_id": "female"}},
        }
    ),
]
"""The two kinds of body for `POST /tts`."""


def _own(here: Served) -> APIRouter:
    router = APIRouter()

    @router.post("/tts", tags=["speech"], response_class=Response, responses={**AUDIO, **REFUSALS})
    def tts(request: Request, body: Either) -> Response:
        """Speak a text, requested in OpenAI's format (`input`) or devnen's (`text`)."""
        if isinstance(body, DevnenBody):
            # devnen's server answers with a complete file, which its clients join with others.
            return here.answer(body.as_speech(), openai.MOST, param="text", whole=True)
        return here.answer(body, served.longest(request))

    @router.get("/tts-stream", tags=["speech"], response_class=Response, responses={**AUDIO, **REFUSALS})
    def tts_stream(body: Annotated[DevnenBody, Query()]) -> Response:
        """Stream a text from an address that an audio element can play."""
        return here.answer(body.as_speech(), openai.MOST, param="text", whole=False)

    @router.get("/get_predefined_voices", tags=["voices"])
    def predefined() -> list[dict[str, Any]]:
        """The image's own voices, for SillyTavern's Chatterbox provider."""
        return [
            {"display_name": voice.id, "filename": f"{voice.id}.wav", "language": voice.language or "en"}
            for voice in here.store.builtin()
        ]

    @router.get("/get_reference_files", tags=["voices"])
    def references() -> list[str]:
        """Uploaded voices, for the same provider."""
        return [f"{voice.id}.wav" for voice in here.store.uploaded()]

    @router.get("/languages", tags=["models"])
    def languages() -> dict[str, Any]:
        """The languages of the loaded model."""
        found = [{"code": code, "name": LANGUAGES.get(code, code)} for code in here.speaker.engine.languages]
        return {"languages": found, "count": len(found)}

    return router
