"""The peer of the bench of voices: a plain FastAPI handler that calls the same engine in FastAPI's own threads."""

from __future__ import annotations

import sys

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import BaseModel

from hearmeman_voice import audio, engine


class Body(BaseModel):
    """What is to be spoken."""

    input: str
    response_format: str = "wav"


def app() -> FastAPI:
    """Make it."""
    made = FastAPI()
    speaks = engine.Spec("hibari").make()
    speaks.load()

    @made.post("/v1/audio/speech")
    def speech(body: Body) -> Response:
        request = engine.Request(text=body.input, voice=speaks.voices[0], language="en", seed=1)
        blocks = list(speaks.synthesize(request))
        return Response(audio.wav(np.concatenate(blocks), speaks.rate), media_type="audio/wav")

    @made.get("/ready")
    def ready() -> None:
        pass

    return made


if __name__ == "__main__":
    uvicorn.run(app(), host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="error")
