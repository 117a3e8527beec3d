"""For each enabled model whether it fits this GPU, and what to change where it does not; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hearmeman.tune.tuner import TOLERANCE


class Model(Protocol):
    """What is needed of a model of the catalogue."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def when(self) -> Mapping[str, str]:
        """Variables and their values that ask for it."""

    @property
    def vram_gb(self) -> float | None:
        """GPU memory with which it runs well."""

    @property
    def vram_gb_offload(self) -> float | None:
        """GPU memory with which it runs slowly."""


@dataclass(frozen=True)
class Fit:
    """Whether one model fits."""

    model: str
    """Its name in the catalogue."""
    verdict: Literal["fits", "slow", "too large", "unknown"]
    """'slow' keeps parts of it in RAM; 'unknown' is said where the catalogue states no figure."""
    needs_gb: float | None
    """GPU memory with which it runs well."""
    has_gb: float
    """GPU memory that is there for it."""
    advice: str
    """What to change; empty when nothing need be."""


def fits(
    models: Iterable[Model], catalogue: Sequence[Model], vram_gb: float, voices: Mapping[str, float]
) -> tuple[Fit, ...]:
    """Judge each of `models`; `catalogue` is where variants are looked for, `voices` are the engines' GB of VRAM."""
    return tuple(_fit(model, catalogue, vram_gb, voices) for model in models)


def _fit(model: Model, catalogue: Sequence[Model], vram_gb: float, voices: Mapping[str, float]) -> Fit:
    # An engine's own model does not have to fit beside itself.
    beside = {name: need for name, need in voices.items() if f"ENABLE_{name.upper()}" not in model.when}
    has = max(0.0, vram_gb - sum(beside.values()))
    if model.vram_gb is None:
        return Fit(model.id, "unknown", None, has, "")
    verdict = _verdict(model, has)
    if verdict == "fits":
        return Fit(model.id, verdict, model.vram_gb, has, "")
    return Fit(model.id, verdict, model.vram_gb, has, _advice(model, catalogue, vram_gb, has, beside, verdict))


def _verdict(model: Model, has: float) -> Literal["fits", "slow", "too large"]:
    if model.vram_gb is None or has >= model.vram_gb * (1 - TOLERANCE):
        return "fits"
    enough = model.vram_gb_offload is not None and has >= model.vram_gb_offload * (1 - TOLERANCE)
    return "slow" if enough else "too large"


def _advice(
    model: Model, catalogue: Sequence[Model], vram_gb: float, has: float, beside: Mapping[str, float], verdict: str
) -> str:
    assert model.vram_gb is not None
    ways = []
    for other in sorted(_variants(model, catalogue), key=lambda one: -(one.vram_gb or 0)):
        if other.vram_gb is not None and _verdict(other, has) == "fits":
            changed = [f"{name}={value}" for name, value in other.when.items() if model.when.get(name) != value]
            ways.append(f"set {' '.join(changed)} ({other.vram_gb:g} GB)")
            break
    if beside and _verdict(model, vram_gb) == "fits":
        ways.append(f"turn off {' and '.join(beside)}, which hold {sum(beside.values()):g} GB")
    ways.append(f"take a GPU with {model.vram_gb + sum(beside.values()):g} GB or more")
    first = "parts of it wait in RAM: slow but it works; to fix that, " if verdict == "slow" else ""
    return first + " or ".join(ways)


def _variants(model: Model, catalogue: Sequence[Model]) -> list[Model]:
    # The same toggle with another value of another variable, as VIBEVOICE_MODEL beside ENABLE_VIBEVOICE.
    toggles = {name for name, value in model.when.items() if value.lower() == "true"}
    return [
        other
        for other in catalogue
        if other.id != model.id
        and toggles <= {name for name, value in other.when.items() if value.lower() == "true"}
        and set(other.when) == set(model.when)
    ]
