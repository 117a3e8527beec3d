"""What an engine is: it loads, it speaks one chunk of text as blocks of samples, and it says what it can do."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hearmeman_voice.refusals import Refused

Samples = NDArray[np.float32]
"""Mono sound, shape (samples,), -1 to 1, at the engine's rate."""


@dataclass(frozen=True)
class Voice:
    """A voice that an engine can speak with."""

    id: str
    clip: Path | None = None
    """A recording to imitate (WAV); None is a voice of the engine itself."""
    language: str | None = None
    gender: str | None = None


@dataclass(frozen=True)
class Request:
    """A text to speak, and how. None leaves a setting at the engine's own default."""

    text: str
    voice: Voice
    language: str = "en"
    speed: float = 1.0
    seed: int | None = None
    exaggeration: float | None = None
    cfg_weight: float | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    length_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The request as plain data, for the engine's process."""
        data = asdict(self)
        data["voice"]["clip"] = str(self.voice.clip) if self.voice.clip else None
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Request":
        voice = dict(data["voice"])
        voice["clip"] = Path(voice["clip"]) if voice["clip"] else None
        return cls(**{**data, "voice": Voice(**voice)})


RANGES: dict[str, tuple[float, float]] = {
    "speed": (0.25, 4.0),
    "seed": (0, 2**32 - 1),
    "exaggeration": (0.0, 2.0),
    "cfg_weight": (0.0, 1.0),
    "temperature": (0.05, 5.0),
    "repetition_penalty": (1.0, 20.0),
    "length_penalty": (-10.0, 10.0),
    "top_k": (1, 1000),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
}
"""The smallest and largest value of every setting; the APIs' documentation shows these."""

_WHOLE = frozenset({"seed", "top_k"})


def check_values(request: Request) -> None:
    """Refuse a setting outside its range, NaN included. Raises: Refused."""
    for name, (least, most) in RANGES.items():
        value = getattr(request, name)
        if value is None and name != "speed":
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise Refused(name, f"{name} must be a number from {least:g} to {most:g}")
        if name in _WHOLE and value != int(value):
            raise Refused(name, f"{name} must be a whole number from {least:g} to {most:g}")
        if not least <= value <= most:
            raise Refused(name, f"{name} is {value:g}; it must be from {least:g} to {most:g}")


def never() -> bool:
    """Never stop early."""
    return False


class Engine(Protocol):
    """A speech engine. Making one is cheap and imports nothing heavy; `load` does the work. The server's process reads
    what it can do; its own process (`child.py`) loads it and speaks.
    """

    name: str
    rate: int
    """Samples per second of what it yields."""
    languages: tuple[str, ...]
    voices: tuple[Voice, ...]
    """Its own voices, which need no recording; some are only known after its files are there."""
    clones: bool
    """Whether it imitates a recording; otherwise it speaks with its own voice, whatever the clip."""

    @property
    def version(self) -> str: ...

    def limit(self, language: str) -> int:
        """The most characters of one chunk of text in this language."""

    def missing(self) -> str | None:
        """What is missing before it can load, as a sentence; None if nothing is."""

    def weight_files(self) -> tuple[Path, ...]:
        """The files whose hash says which weights speak."""

    def load(self) -> None: ...

    def unload(self) -> None: ...

    def synthesize(self, request: Request, stopped: Callable[[], bool] = never) -> Iterator[Samples]:
        """Speak one chunk of text, at most `limit` characters, in blocks. `stopped` is called as often as possible;
        once it returns true, speaking ends at once. Raises: Refused when this text or clip is at fault.
        """


ENGINES: dict[str, str] = {
    "hibari": "hearmeman_voice.engines.hibari:Hibari",
    "flite": "hearmeman_voice.engines.command:Flite",
    "espeak": "hearmeman_voice.engines.command:Espeak",
    "xtts": "hearmeman_voice.engines.xtts:Xtts",
    "chatterbox": "hearmeman_voice.engines.chatterbox:Chatterbox",
}
"""Where to find each engine's class."""


@dataclass(frozen=True)
class Spec:
    """Which engine, and its arguments; simple enough to send to another process."""

    engine: str
    """A name of ENGINES, or "module:Class"."""
    models: Path = Path("/workspace/models")
    gpu: str = ""
    """What CUDA_VISIBLE_DEVICES of the engine's process becomes; empty leaves it as it is."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the class, such as `model="english"` for Chatterbox."""

    def make(self) -> Engine:
        """The engine, not loaded. Raises: ValueError for an unknown name."""
        place = ENGINES.get(self.engine, self.engine)
        module, _, name = place.partition(":")
        if not name:
            raise ValueError(f"there is no engine {self.engine!r}; there are {', '.join(ENGINES)}")
        engine: Engine = getattr(import_module(module), name)(self.models, **self.options)
        return engine

    def as_json(self) -> dict[str, Any]:
        return {"engine": self.engine, "models": str(self.models), "gpu": self.gpu, "options": dict(self.options)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Spec":
        return cls(**{**data, "models": Path(data["models"])})


def language_of(engine: Engine, language: str) -> str:
    """The engine's own code for a language: any case, `zh` for `zh-cn` and vice versa, `en-GB` for `en`. Raises:
    Refused for a language that it does not speak.
    """
    wanted = language.strip().lower().replace("_", "-")
    known = {code.lower(): code for code in engine.languages}
    for code in (wanted, wanted.split("-")[0], {"zh": "zh-cn"}.get(wanted.split("-")[0], "")):
        if code in known:
            return known[code]
    spoken = ", ".join(engine.languages)
    raise Refused("language", f"{engine.name} does not speak {language[:20]!r}; it speaks {spoken}", "not_found")


KNOBS = tuple(entry.name for entry in fields(Request) if entry.name not in {"text", "voice", "language"})
"""The names of the settings, in the order of Request."""
