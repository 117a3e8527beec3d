"""hibari-tts: a small neural voice for English whose weights are in its wheel, forty times faster than speech on a CPU."""

import os
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hearmeman_voice.audio import stretch
from hearmeman_voice.engine import Request, Samples, Voice, never

NATIVE_SPEED = (0.5, 2.0)
"""The speeds the model was made for; beyond them the sound is stretched instead."""
_LOOK = 0.02
"""Seconds between checks whether somebody is still listening."""


class Hibari:
    """One voice, `heart`: hibari would download its other four, and this server fetches nothing."""

    name = "hibari"
    rate = 24000
    languages = ("en",)
    voices = (Voice("heart", language="en", gender="female"),)
    clones = False
    parallel = min(len(os.sched_getaffinity(0)), 4)
    """Texts at once, each in its own process (110 MB), since hibari uses one core."""

    def __init__(self, models: Path) -> None:
        self._tts: Any = None

    @property
    def version(self) -> str:
        return version("hibari-tts")

    def limit(self, language: str) -> int:
        # What follows the network cannot be stopped: a tenth of a second, or several on a busy machine.
        return 200

    def missing(self) -> str | None:
        return None if find_spec("hibari") else "the package hibari-tts is not in this environment"

    def weight_files(self) -> tuple[Path, ...]:
        from hibari.voices import voice_path

        return (Path(voice_path("heart", download_missing=False)),)

    def load(self) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        from hibari import Hibari as Model

        self._tts = Model("heart", threads=1)
        self._network = self._tts.sess = _Network(self._tts.sess)
        # The first sentence takes a second longer than any other.
        self._tts("Ready.")

    def unload(self) -> None:
        self._tts = None

    def synthesize(self, request: Request, stopped: Callable[[], bool] = never) -> Iterator[Samples]:
        native = min(max(request.speed, NATIVE_SPEED[0]), NATIVE_SPEED[1])
        # It fails at digits such as the one in "x²".
        text = unicodedata.normalize("NFKC", request.text)
        self._network.stopped = stopped
        try:
            for block in self._tts.stream(text, native, request.seed):
                if stopped():
                    return
                yield stretch(np.asarray(block, np.float32), self.rate, request.speed / native)
        except Stopped:
            return


class Stopped(Exception):
    """Nobody is listening any more."""


class _Network:
    """onnxruntime's session for hibari; it can stop between two operators once nobody is listening."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._thread = ThreadPoolExecutor(1, "network")
        self.stopped: Callable[[], bool] = never

    def run(self, outputs: Any, inputs: dict[str, Any]) -> Any:
        """Compute. Raises: Stopped."""
        from onnxruntime import RunOptions

        options = RunOptions()
        running = self._thread.submit(self._session.run, outputs, inputs, options)
        while not wait([running], _LOOK).done:
            if self.stopped():
                options.terminate = True
                wait([running])
                raise Stopped
        return running.result()
