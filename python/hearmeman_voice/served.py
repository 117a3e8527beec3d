"""What both APIs share: an engine and its voices, at addresses that OpenAI's clients know."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp

from hearmeman_voice import engine, errors, openai, reply, text
from hearmeman_voice.errors import ApiError
from hearmeman_voice.front import Front, Pages
from hearmeman_voice.metrics import Metrics
from hearmeman_voice.openai import Manner, SpeechBody
from hearmeman_voice.refusals import VoiceError
from hearmeman_voice.speaker import Speaker
from hearmeman_voice.voices import UnknownVoice, VoiceStore

APP: dict[str, Any] = {"redirect_slashes": False, "docs_url": None, "redoc_url": None}
"""Arguments of both apps. FastAPI's own pages load their scripts from sites that a pod may not reach."""

_PAGE = Path(__file__).with_name("docs.html")
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:; media-src blob:; form-action "
    "'none'; "
    "base-uri 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}

Responses = dict[int | str, dict[str, Any]]
"""The type of FastAPI's `responses`."""

AUDIO: Responses = {
    200: {
        "description": "the audio, as it is made; events with stream_format=sse",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in (
                "text/event-stream",
                "audio/wav",
                "audio/mpeg",
                "audio/flac",
                "audio/ogg",
                "audio/aac",
                "audio/pcm",
            )
        },
    }
}
"""What speech answers with, for the OpenAPI description."""

_ERROR = {
    "description": "an error in OpenAI's shape",
    "content": {
        "application/json": {
            "example": {
                "error": {
                    "message": "voice: there is no voice 'nobody'; /voices lists them",
                    "type": "invalid_request_error",
                    "param": "voice",
                    "code": "voice_not_found",
                }
            }
        }
    },
}
SPEECH_EXAMPLES: dict[str, Any] = {
    "the least": {"value": {"input": "Hello world"}},
    "OpenAI's own": {"value": {"model": "tts-1", "input": "Hello world", "voice": "alloy", "response_format": "mp3"}},
    "events": {"value": {"input": "SSE streaming test", "stream_format": "sse", "response_format": "pcm"}},
}
"""Requests that the page /docs offers; each can be sent as it is."""

REFUSALS: Responses = {
    400: _ERROR,
    404: {**_ERROR, "description": "no such model"},
    413: _ERROR,
    429: {**_ERROR, "description": "the queue is full: try again after Retry-After seconds"},
    503: {**_ERROR, "description": "the model is still being loaded, or has failed and is being restarted"},
}
"""Other possible answers."""


@dataclass(frozen=True)
class Served:
    """An engine with its voices, and what an API says about them."""

    api: str
    """'xtts' or 'chatterbox'."""
    models: tuple[str, ...]
    """The names of the loaded model; its own comes first."""
    speaker: Speaker
    store: VoiceStore
    metrics: Metrics
    started: int = field(default_factory=lambda: int(time.time()))
    """Start time, in Unix seconds."""

    def voice(self, name: str, param: str = "voice") -> engine.Voice:
        """Find a voice by name or alias.

        Raises:
            ApiError: there is none.
        """
        try:
            return self.store.get(name)
        except UnknownVoice as problem:
            raise ApiError(400, f"{param}: {problem.message}", param=param, code="voice_not_found") from None

    def names(self) -> list[str]:
        """List the voices, and then OpenAI's names for them."""
        found = [voice.id for voice in self.store.list()]
        return found + [name for name in self.store.aliases() if name not in found]

    def check_model(self, asked: str | None) -> None:
        """Refuse a model that is not loaded.

        Raises:
            ApiError: it has another name.
        """
        if asked and asked not in (*self.models, *openai.MODELS):
            raise ApiError(
                404,
                f"model: {asked[:100]!r} is not loaded; this server has {', '.join(self.models)} (and "
                f"{', '.join(openai.MODELS)} mean the same)",
                param="model",
                code="model_not_found",
            )

    def request(
        self, words: str, voice: engine.Voice, language: str | None, manner: Manner, speed: float, param: str = "input"
    ) -> engine.Request:
        """Make the engine's request; the default language is the voice's own, if the engine speaks it.

        Raises:
            ApiError: the engine does not take it.
        """
        if not words.strip():
            raise ApiError(400, f"{param}: it is empty", param=param, code="invalid_value")
        speaks = self.speaker.engine
        own = voice.language if voice.language in speaks.languages else None
        default = "en" if "en" in speaks.languages else speaks.languages[0]
        seed = None if manner.seed is None or manner.seed < 0 else manner.seed
        given = manner.model_dump(include=set(Manner.model_fields) - {"seed"})
        wanted = engine.Request(words, voice, language or own or default, speed, seed, **given)
        try:
            return self.speaker.check(wanted)
        except VoiceError as problem:
            raise reply.as_api_error(problem, param) from None

    def is_one_piece(self, request: engine.Request) -> bool:
        """Whether the engine speaks a text in one go, so that waiting for its end costs nothing."""
        limit = self.speaker.engine.limit(request.language)
        return len(text.split(request.text, limit, request.language)) == 1

    def answer(self, body: SpeechBody, most: int, param: str = "input", whole: bool | None = None) -> reply.Spoken:
        """Answer a request for speech; a WAV in one piece, or with `whole`, has its true length.

        Raises:
            ApiError: it cannot be spoken.
        """
        if len(body.input) > most:
            raise ApiError(
                400,
                f"{param}: {len(body.input)} characters are more than a request may have ({most}); send them in parts",
                param=param,
                code="string_above_max_length",
            )
        self.check_model(body.model)
        voice = self.voice(body.voice_name)
        request = self.request(body.input, voice, body.language, body, body.speed, param)
        rate = self.speaker.engine.rate
        out: reply.Out
        if body.stream_format == "sse":
            out = reply.Events(body.response_format, rate, len(body.input))
        else:
            if whole is None:
                whole = body.response_format == "wav" and self.is_one_piece(request)
            out = reply.Audio(body.response_format, rate, whole)
        return reply.Spoken(self.speaker.speak(request), out, self.metrics, len(body.input), rate, param)


def health(served: Served) -> tuple[dict[str, Any], bool]:
    """The engine's state, and whether the process is healthy; still loading counts as healthy."""
    state = dict(served.speaker.state())
    if state.get("broken"):
        status = "broken"
    elif state["loaded"]:
        status = "ready"
    else:
        status = "loading" if state.get("loading") else "idle"
    about = {"status": status, "api": served.api, "engine": state.pop("name"), **state}
    return {**about, "uptime_seconds": int(time.time()) - served.started}, status != "broken"


def is_ready(about: dict[str, Any]) -> bool:
    """Whether a request would be accepted now: an unloaded model comes back by itself."""
    return about["status"] in ("ready", "idle")


def common(served: Served) -> APIRouter:
    """The addresses of both APIs."""
    router = APIRouter()

    # The most frequent first: each request is compared with one address after another.
    @router.post("/audio/speech", tags=["speech"], response_class=Response, responses={**AUDIO, **REFUSALS})
    def speech(request: Request, body: Annotated[SpeechBody, Body(openapi_examples=SPEECH_EXAMPLES)]) -> Response:
        """Speak a text: OpenAI's own request. The first sentence is sent while the second is made."""
        return served.answer(body, longest(request))

    @router.post("/audio/speech/stream", tags=["speech"], response_class=Response, responses={**AUDIO, **REFUSALS})
    def stream(request: Request, body: Annotated[SpeechBody, Body(openapi_examples=SPEECH_EXAMPLES)]) -> Response:
        """Speak a text without ever waiting to know its length."""
        return served.answer(body, longest(request), whole=False)

    @router.get("/health", tags=["state"])
    def read_health() -> JSONResponse:
        """Whether the server is alive, what is loaded and how long the queue is. 200 even while loading; 503 if it must
        restart.
        """
        about, is_well = health(served)
        return JSONResponse(about, 200 if is_well else 503)

    @router.get("/ready", tags=["state"], responses={503: _ERROR})
    def read_ready() -> JSONResponse:
        """Whether a request would be accepted now: 200, or 503 with the loading progress."""
        about, _ = health(served)
        if is_ready(about):
            return JSONResponse(about)
        error = ApiError(503, f"not ready: {about['progress']}", code="not_ready", retry_after=5.0)
        return JSONResponse({**error.body(), **about}, 503, error.advice())

    @router.get("/ping", tags=["state"], response_class=Response, responses={204: {"description": "still loading"}})
    def ping() -> Response:
        """For RunPod's load balancer: 200 ready, 204 still loading, 503 broken."""
        about, is_well = health(served)
        return Response(status_code=503 if not is_well else 200 if is_ready(about) else 204)

    @router.get("/metrics", tags=["state"], response_class=Response)
    def read_metrics() -> Response:
        """Metrics for Prometheus: first byte, real-time factor, queue, refusals."""
        page, kind = served.metrics.page()
        return Response(page, headers={"Content-Type": kind})

    @router.get("/models", tags=["models"])
    @router.get("/audio/models", tags=["models"])
    def models() -> dict[str, Any]:
        """The names of the loaded model."""
        return openai.model_list((*served.models, *openai.MODELS), "hearmeman", served.started)

    @router.get("/models/{name}", tags=["models"], responses={404: _ERROR})
    def model(name: str) -> dict[str, Any]:
        """One model."""
        served.check_model(name)
        found: dict[str, Any] = openai.model_list((name,), "hearmeman", served.started)["data"][0]
        return found

    @router.get("/audio/voices", tags=["voices"])
    def audio_voices() -> dict[str, Any]:
        """The voices, as Open WebUI expects them."""
        return {"voices": [{"id": name, "name": name} for name in served.names()]}

    return router


def docs() -> HTMLResponse:
    """The API's page: every address, with examples to send. It loads nothing from other sites."""
    return HTMLResponse(_PAGE.read_text("utf-8"), headers=_PAGE_HEADERS)


def longest(request: Request) -> int:
    """The most characters in one text: OpenAI's own client, which names itself, may send what OpenAI allows."""
    return openai.MOST_BY_OPENAI if "x-stainless-lang" in request.headers else openai.MOST


def finish(app: FastAPI, served: Served, router: APIRouter, uploads: Sequence[str], origins: Sequence[str]) -> ASGIApp:
    """Add the addresses to the app, and the checks that every request passes through."""
    errors.install(app)
    served.speaker.measured = served.metrics.measured
    describe = app.openapi

    def described() -> dict[str, Any]:
        """Leave out FastAPI's own answer that this app never gives."""
        found = describe()
        for operations in found["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        return found

    app.openapi = described  # type: ignore[method-assign]
    app.include_router(router)
    app.get("/docs", include_in_schema=False)(docs)
    return Pages(Front(app, served.metrics, uploads), origins)
