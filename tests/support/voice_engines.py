"""Engines that go wrong, each in its own way, for the process that speaks."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hearmeman_voice.engine import Request, Voice, never
from hearmeman_voice.refusals import Refused


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


class Wrong:
    """Says a tenth of a second, then does what its text begins with."""

    name = "wrong"
    rate = 24000
    languages: tuple[str, ...] = ("en", "zh-cn")
    voices: tuple[Voice, ...] = (Voice("nobody", language="en"),)
    clones = False
    version = "1"

    def __init__(self, models: Path, unloadable: bool = False) -> None:
        self._models, self._is_unloadable = models, unloadable

    def limit(self, language: str) -> int:
        return 300

    def missing(self) -> str | None:
        return None if self._models.exists() else "model.bin is not there yet"

    def weight_files(self) -> tuple[Path, ...]:
        return ()

    def load(self) -> None:
        if self._is_unloadable:
            raise ValueError("the file model.bin is damaged")

    def unload(self) -> None:
        pass

    def synthesize(self, request: Request, stopped: Callable[[], bool] = never) -> Iterator[NDArray[np.float32]]:
        if request.text.startswith("silence"):
            return
        yield np.full(2400, 0.25, np.float32)
        match request.text.split()[0]:
            case "assert":
                raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be ...")
            case "memory" if len(request.text) > 20 or (self._models / "held").exists():
                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            case "refuse":
                raise Refused("voice", "this recording is too short for the engine")
            case "error":
                raise ValueError("a bad sample")
            case "crash":
                os._exit(11)
            case "hang":
                time.sleep(600)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def wrong(**more: Any) -> Request:
    """A request to it."""
    return Request(**{"text": "hello", "voice": Wrong.voices[0], **more})
