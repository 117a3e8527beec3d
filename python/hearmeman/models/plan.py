"""Settings, catalogue and what is on disk to what must be fetched, in which order, and what is to be said; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from hearmeman.errors import HearmemanError
from hearmeman.models.catalogue import Catalogue, File, Listing, Model, Snapshot, parts
from hearmeman.models.notes import Host, notes
from hearmeman.terminal import size

MARGIN_BYTES = 512 * 1024**2
"""What stays free for ComfyUI's outputs and the pod's state."""
SMALL_BYTES = 1024**3
"""Shared files below this come first."""

Action = Literal["fetch", "verify", "present", "list"]


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
    listings: Mapping[str, Listing]
    """Snapshot id -> what it consists of."""
    free_bytes: int
    """What the filesystem, or the volume's quota, has left."""


@dataclass(frozen=True)
class Step:
    """What is to be done about one file."""

    file: File
    """The file, or a snapshot that is not listed yet."""
    action: Action
    """What."""
    reason: str
    """Why."""
    models: tuple[str, ...]
    """Ids of the models that need it."""
    bytes: int = 0
    """Bytes still to fetch, as far as known."""


@dataclass(frozen=True)
class Plan:
    """All that a fetch will do."""

    models: tuple[Model, ...]
    """The models asked for."""
    steps: tuple[Step, ...]
    """One for each file that they need, in the order in which they are fetched."""
    free_bytes: int
    """What the filesystem, or the volume's quota, has left."""
    notes: tuple[str, ...] = field(default=())
    """What a person should know."""

    def having(self, *actions: Action) -> tuple[Step, ...]:
        """Give the steps of these actions."""
        return tuple(step for step in self.steps if step.action in actions)

    @property
    def fetch_bytes(self) -> int:
        """Bytes to fetch, as far as known."""
        return sum(step.bytes for step in self.steps)

    @property
    def unknown(self) -> tuple[Step, ...]:
        """Steps that fetch something of which no one knows the size."""
        return tuple(step for step in self.having("fetch", "list") if not step.file.sized)


def make_plan(
    catalogue: Catalogue, models: tuple[Model, ...], disk: Disk, host: Host, left_out: Iterable[Model] = ()
) -> Plan:
    """Decide for each file of `models` what is to be done; `left_out` are models that only a note is made of."""
    needed_by: dict[str, list[str]] = {}
    for model in models:
        for name in model.files:
            needed_by.setdefault(name, []).append(model.id)
    steps: list[Step] = []
    for file in catalogue.files:
        if file.id in needed_by:
            users = tuple(needed_by[file.id])
            steps += [_step(one, disk, users) for one in _expanded(file, disk)]
    ordered = _ordered(steps, models)
    return Plan(models, ordered, disk.free_bytes, notes(_todo(ordered), models, host, left_out))


def _expanded(file: File, disk: Disk) -> tuple[File, ...]:
    listed = isinstance(file.source, Snapshot) and file.id in disk.listings
    return parts(file, disk.listings[file.id]) if listed else (file,)


def _step(file: File, disk: Disk, models: tuple[str, ...]) -> Step:
    if file.unnamed:
        return Step(file, "list", "name not fetched yet", models, file.expected)
    if isinstance(file.source, Snapshot):
        return Step(file, "list", "file list not fetched yet", models, file.expected)
    found, record = disk.found.get(file.to), disk.records.get(file.to)
    there = disk.partial.get(file.id, 0)
    left = max(0, file.expected - there)
    if found is None:
        return Step(file, "fetch", f"{size(there)} of it is there" if there else "not there", models, left)
    if file.size is not None and found.size != file.size:
        return Step(file, "fetch", f"has {found.size} bytes instead of {file.size}", models, left)
    if record is None or (record.size, record.mtime_ns) != (found.size, found.mtime_ns):
        return Step(file, "verify", "never verified" if record is None else "changed since it was verified", models)
    if file.sha256 is not None and record.sha256 != file.sha256:
        return Step(file, "fetch", "another version is in its place", models, left)
    if not (file.sha256 or file.blob or record.source or file.stated):
        return Step(file, "verify", "never compared with its source", models)
    return Step(file, "present", "verified before", models)


def _todo(steps: Iterable[Step]) -> list[File]:
    return [step.file for step in steps if step.action in ("fetch", "list")]


def _ordered(steps: list[Step], models: tuple[Model, ...]) -> tuple[Step, ...]:
    """Small shared files first, then model by model, the one that is usable soonest first."""
    shared = sorted((s for s in steps if len(s.models) > 1 and s.file.expected < SMALL_BYTES), key=lambda s: s.bytes)
    ordered = {step.file.id: step for step in shared}
    missing = {model.id: sum(s.bytes for s in steps if model.id in s.models) for model in models}
    for model in sorted(models, key=lambda m: missing[m.id]):
        mine = sorted((s for s in steps if model.id in s.models), key=lambda s: s.bytes)
        ordered.update({s.file.id: s for s in mine if s.file.id not in ordered})
    return tuple(ordered.values())


def check_space(plan: Plan, models_dir: str, quota_gb: float = 0) -> None:
    """Refuse what does not fit.

    Raises:
        DiskTooSmallError: with the figures.
    """
    steps = plan.having("fetch", "list")
    if not steps or plan.fetch_bytes + MARGIN_BYTES <= plan.free_bytes:
        return
    largest = max(plan.models, key=lambda model: _bytes_for(steps, model))
    where = f"the volume's quota (VOLUME_SIZE_GB={quota_gb:g}) leaves" if quota_gb else f"{models_dir} has"
    short = plan.fetch_bytes + MARGIN_BYTES - plan.free_bytes
    raise DiskTooSmallError(
        f"{where} {plan.free_bytes / 1e9:.2f} GB free; {'at least ' if plan.unknown else ''}"
        f"{plan.fetch_bytes / 1e9:.2f} GB would be fetched"
        f" and {MARGIN_BYTES / 1e9:.2f} GB must stay free, {short / 1e9:.2f} GB are missing: nothing was fetched."
        f" Use a larger volume, delete files (`hearmeman models prune` lists what no enabled model needs),"
        f" or enable fewer models: the largest is {largest.id} with {_bytes_for(steps, largest) / 1e9:.2f} GB."
    )


def _bytes_for(steps: Iterable[Step], model: Model) -> int:
    return sum(step.bytes for step in steps if model.id in step.models)
