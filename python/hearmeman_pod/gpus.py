"""GPUs with price and stock: from RunPod's catalogue, or their names alone; and which of them to ask for; pure."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearmeman_pod.errors import NoCapacityError, UsageError

_STOCK = {"HIGH": 3, "MEDIUM": 2, "LOW": 1, "NONE": 0}


@dataclass(frozen=True)
class Gpu:
    """One type of GPU in one cloud."""

    id: str
    """As the API takes it."""
    memory: int
    """GB of VRAM."""
    price: float | None = None
    """Dollars an hour for one; None where it is not known."""
    stock: str = ""
    """NONE, LOW, MEDIUM or HIGH; empty where it is not known."""
    data_centers: tuple[str, ...] = ()
    """Where some are free."""
    most: int = 1
    """The largest number of them in one pod."""


def from_names() -> tuple[Gpu, ...]:
    """GPUs as RunPod's documentation lists them, without price and stock."""
    text = Path(__file__).with_name("gpus.toml").read_text(encoding="utf-8")
    return tuple(Gpu(name, int(memory), most=8) for name, memory in tomllib.loads(text).items())


def from_catalogue(entries: Iterable[Mapping[str, Any]], cloud: str) -> tuple[Gpu, ...]:
    """Read the answer of GET /v2/catalog/gpus for `cloud`, SECURE or COMMUNITY."""
    which = cloud.lower()
    return tuple(
        Gpu(
            entry["id"],
            int(entry["memory"]),
            float(entry["price"][which]) or None,
            str(entry.get("availability") or ""),
            tuple(
                center["id"]
                for center in entry.get("dataCenters") or ()
                if _STOCK.get(str(center.get("availability")), 1) > 0
            ),
            int(entry["maxCount"][which]),
        )
        for entry in entries
        if entry.get(which) and entry.get("manufacturer") == "NVIDIA"
    )


def cuda_version(text: str) -> tuple[int, ...]:
    """A CUDA version as it is compared: 12.11 is above 12.2."""
    return tuple(int(part) for part in text.split("."))


def cuda_from(entries: Iterable[Mapping[str, Any]], floor: str) -> list[str]:
    """The CUDA versions, `floor` or newer, of the machines that GET /v2/catalog/gpus lists; the oldest first."""
    found = {one["version"] for entry in entries for one in entry.get("cudaVersions") or ()}
    return sorted((one for one in found if cuda_version(one) >= cuda_version(floor)), key=cuda_version)


def choose(
    known: Sequence[Gpu],
    named: Sequence[str],
    memory_gb: float,
    count: int = 1,
    data_center: str = "",
    max_price: float | None = None,
) -> tuple[Gpu, ...]:
    """Order the acceptable GPUs: as `named`, otherwise those with `memory_gb` or more, cheapest first.

    Raises:
        UsageError: a name is unknown; the nearest is given.
        NoCapacityError: none is acceptable; the message says which condition leaves none.
    """
    if named:
        found = [_named(known, name) for name in named]
    else:
        found = [gpu for gpu in known if gpu.memory >= memory_gb]
        found.sort(key=lambda gpu: (gpu.price is None, gpu.price or 0, gpu.memory, -_STOCK.get(gpu.stock, 1)))
    steps: list[tuple[str, Callable[[Gpu], bool]]] = [
        (f"{memory_gb:g} GB of memory or more", lambda gpu: True),
        (f"room for {count} in one pod", lambda gpu: gpu.most >= count),
        (f"data centre {data_center}", lambda gpu: not data_center or not gpu.stock or data_center in gpu.data_centers),
        ("one free now", lambda gpu: gpu.stock != "NONE"),
        (
            f"at most ${max_price or 0:g} an hour",
            lambda gpu: max_price is None or gpu.price is None or gpu.price * count <= max_price,
        ),
    ]
    for condition, holds in steps:
        left = [gpu for gpu in found if holds(gpu)]
        if not left:
            raise NoCapacityError(_none_left(condition, found, count))
        found = left
    return tuple(found)


def _named(known: Sequence[Gpu], name: str) -> Gpu:
    exact = [gpu for gpu in known if gpu.id.casefold() == name.casefold()]
    parts = [gpu for gpu in known if name.casefold() in gpu.id.casefold()]
    if len(exact or parts) == 1:
        return (exact or parts)[0]
    if parts:
        raise UsageError(f"--gpu {name} could be {', '.join(gpu.id for gpu in parts)}: give one of these names")
    near = difflib.get_close_matches(name, [gpu.id for gpu in known], n=3, cutoff=0.3)
    raise UsageError(f"--gpu {name}: RunPod has no such GPU; the nearest are {', '.join(near) or 'none'}")


def _none_left(condition: str, before: Sequence[Gpu], count: int) -> str:
    if not before:
        return f"no GPU has {condition}: enable fewer or smaller models, or name a GPU with --gpu"
    shown = ", ".join(
        f"{gpu.id}" + (f" (${gpu.price * count:.2f}, {gpu.stock.lower() or 'stock unknown'})" if gpu.price else "")
        for gpu in before[:4]
    )
    return f"no GPU that fits meets this condition: {condition}. Otherwise acceptable: {shown}"
