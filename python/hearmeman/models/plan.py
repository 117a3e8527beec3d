"""Settings, catalogue and what is on disk to what must be fetched; pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from hearmeman.errors import HearmemanError, UsageError
from hearmeman.models.catalogue import Catalogue, File, Model
from hearmeman.settings import Settings

MARGIN_BYTES = 512 * 1024**2
"""What stays free for ComfyUI's outputs and the pod's state."""

Action = Literal["fetch", "verify", "present"]


class UnknownModelError(UsageError):
    """MODELS or the command names a model that the catalogue does not have."""


class DiskTooSmallError(HearmemanError):
    """What is to be fetched does not fit; nothing was fetched."""


@dataclass(frozen=True)
class Found:
    """A file on disk, as stat sees it."""

    size: int
    """Bytes."""
    mtime_ns: int
    """Time of its last change."""


@dataclass(frozen=True)
class Record:
    """What is known of a file since it was verified."""

    size: int
    """Bytes."""
    mtime_ns: int
    """Time of its last change when it was verified."""
    sha256: str
    """Hash of its content."""
    source: str = ""
    """Where it came from; empty when it was there before us."""


@dataclass(frozen=True)
class Disk:
    """What the planner knows of the models folder."""

    found: Mapping[str, Found]
    """Destination -> the file there."""
    records: Mapping[str, Record]
    """Destination -> what was verified."""
    partial: Mapping[str, int]
    """File id -> bytes already in staging."""
    free_bytes: int
    """What the filesystem has left."""


@dataclass(frozen=True)
class Step:
    """What is to be done about one file."""

    file: File
    """The file."""
    action: Action
    """What."""
    reason: str
    """Why."""
    models: tuple[str, ...]
    """Ids of the models that need it."""
    bytes: int
    """Bytes still to fetch; 0 when unknown."""


@dataclass(frozen=True)
class Plan:
    """All that a fetch will do."""

    models: tuple[Model, ...]
    """The models asked for."""
    steps: tuple[Step, ...]
    """One for each file that they need."""
    free_bytes: int
    """What the filesystem has left."""
    notes: tuple[str, ...]
    """What a person should know."""

    @property
    def fetch(self) -> tuple[Step, ...]:
        """The files to fetch."""
        return tuple(step for step in self.steps if step.action == "fetch")

    @property
    def fetch_bytes(self) -> int:
        """Bytes to fetch, where known."""
        return sum(step.bytes for step in self.fetch)


def asked_for(catalogue: Catalogue, settings: Settings, names: Iterable[str] = ()) -> tuple[Model, ...]:
    """Tell which models the settings and `names` ask for, in the catalogue's order.

    Raises:
        UnknownModelError: a name is not in the catalogue.
    """
    wanted = {name.strip() for name in [*settings.models.split(","), *names]} - {""}
    known = {model.id for model in catalogue.models}
    unknown = [f"{name!r}{_nearest(name, known)}" for name in sorted(wanted - known)]
    if unknown:
        raise UnknownModelError(
            f"the catalogue has no model {', '.join(unknown)}: `hearmeman models list` names what there is; correct MODELS"
        )
    values = {name.upper(): str(value).lower() for name, value in settings if not name.startswith("hf_token")}
    return tuple(model for model in catalogue.models if model.id in wanted or _switched_on(model, values))


def _switched_on(model: Model, values: Mapping[str, str]) -> bool:
    return bool(model.when) and all(values.get(name) == value.lower() for name, value in model.when.items())


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def make_plan(catalogue: Catalogue, models: tuple[Model, ...], disk: Disk) -> Plan:
    """Decide for each file of `models` what is to be done."""
    needed_by: dict[str, list[str]] = {}
    for model in models:
        for name in model.files:
            needed_by.setdefault(name, []).append(model.id)
    steps = [_step(file, disk, tuple(needed_by[file.id])) for file in catalogue.files if file.id in needed_by]
    notes = [f"{s.file.to}: its hash is not established" for s in steps if s.file.sha256 is None]
    return Plan(models, tuple(steps), disk.free_bytes, tuple(notes))


def _step(file: File, disk: Disk, models: tuple[str, ...]) -> Step:
    found, record = disk.found.get(file.to), disk.records.get(file.to)
    left = max(0, (file.size or 0) - disk.partial.get(file.id, 0))
    if found is None:
        return Step(file, "fetch", "not there" if left == (file.size or 0) else "partly there", models, left)
    if file.size is not None and found.size != file.size:
        return Step(file, "fetch", f"has {found.size} bytes instead of {file.size}", models, left)
    if record is None or (record.size, record.mtime_ns) != (found.size, found.mtime_ns):
        return Step(file, "verify", "never verified" if record is None else "changed since it was verified", models, 0)
    if file.sha256 is not None and record.sha256 != file.sha256:
        return Step(file, "fetch", "another version of it is there", models, left)
    return Step(file, "present", "verified before", models, 0)


def check_space(plan: Plan, models_dir: str) -> None:
    """Refuse what does not fit.

    Raises:
        DiskTooSmallError: with the figures.
    """
    if plan.fetch and plan.fetch_bytes + MARGIN_BYTES > plan.free_bytes:
        largest = max(plan.fetch, key=lambda step: step.bytes)
        raise DiskTooSmallError(
            f"{models_dir} has {plan.free_bytes / 1e9:.2f} GB free; {plan.fetch_bytes / 1e9:.2f} GB are to be fetched"
            f" and {MARGIN_BYTES / 1e9:.2f} GB must stay free: nothing was fetched. Use a larger volume, delete files,"
            f" or ask for fewer models (the largest file is {largest.file.to}, for {', '.join(largest.models)})."
        )
