"""Settings, catalogue and what is on disk to what must be fetched, in which order, and what is to be said; pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from hearmeman.errors import HearmemanError, UsageError
from hearmeman.models.catalogue import Catalogue, CivitAI, File, Listing, Model, Snapshot, parts
from hearmeman.settings import Settings

MARGIN_BYTES = 512 * 1024**2
"""What stays free for ComfyUI's outputs and the pod's state."""
SMALL_BYTES = 1024**3
"""Shared files below this come first."""

Action = Literal["fetch", "verify", "present", "list"]


class UnknownModelError(UsageError):
    """MODELS or the command names a model that the catalogue does not have."""


class UnknownVariableError(HearmemanError):
    """The catalogue makes a model depend on a variable that does not exist."""


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
class Host:
    """What the planner knows of the machine and the tokens."""

    tier: str = "consumer"
    """GPU tier."""
    vram_gb: float | None = None
    """GPU memory in GB; None when no GPU was seen."""
    hf_token: bool = False
    """Whether HF_TOKEN is set."""
    civitai_key: bool = False
    """Whether CIVITAI_API_KEY is set."""


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


def asked_for(catalogue: Catalogue, settings: Settings, names: Iterable[str] = ()) -> tuple[Model, ...]:
    """Tell which models the settings and `names` ask for, in the catalogue's order.

    Raises:
        UnknownModelError: a name is not in the catalogue.
        UnknownVariableError: the catalogue names a variable that does not exist.
    """
    wanted = _named(settings, names)
    known = {model.id for model in catalogue.models}
    unknown = [f"{name!r}{_nearest(name, known)}" for name in sorted(wanted - known)]
    if unknown:
        raise UnknownModelError(
            f"the catalogue has no model {', '.join(unknown)}: `hearmeman models list` names what there is; correct MODELS"
        )
    values = {name.upper(): _words(value) for name, value in settings}
    for model in catalogue.models:
        for name in model.when:
            if name not in values:
                raise UnknownVariableError(
                    f"the catalogue's model {model.id} depends on {name}, which is no variable{_nearest(name, values)}:"
                    " correct it"
                )
    return tuple(model for model in catalogue.models if model.id in wanted or _switched_on(model, values))


def _named(settings: Settings, names: Iterable[str] = ()) -> set[str]:
    return {name.strip() for name in [*settings.models.split(","), *names]} - {""}


def _words(value: object) -> frozenset[str]:
    # A list matches each of its words.
    return frozenset(word.strip().lower() for word in str(value).split(","))


def _switched_on(model: Model, values: Mapping[str, frozenset[str]]) -> bool:
    return bool(model.when) and all(value.lower() in values[name] for name, value in model.when.items())


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def for_tier(models: Iterable[Model], settings: Settings, tier: str, names: Iterable[str] = ()) -> tuple[Model, ...]:
    """Leave out what a toggle asks for on a GPU tier it is not for; what is named stays."""
    named = _named(settings, names)
    return tuple(model for model in models if not model.tiers or tier in model.tiers or model.id in named)


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
    return Plan(models, ordered, disk.free_bytes, _notes(ordered, models, host, left_out))


def _expanded(file: File, disk: Disk) -> tuple[File, ...]:
    listed = isinstance(file.source, Snapshot) and file.id in disk.listings
    return parts(file, disk.listings[file.id]) if listed else (file,)


def _step(file: File, disk: Disk, models: tuple[str, ...]) -> Step:
    if isinstance(file.source, Snapshot):
        return Step(file, "list", "what it consists of is asked for first", models, file.expected)
    found, record = disk.found.get(file.to), disk.records.get(file.to)
    there = disk.partial.get(file.id, 0)
    left = max(0, file.expected - there)
    if found is None:
        return Step(file, "fetch", f"{there} bytes of it are there" if there else "not there", models, left)
    if file.size is not None and found.size != file.size:
        return Step(file, "fetch", f"has {found.size} bytes instead of {file.size}", models, left)
    if record is None or (record.size, record.mtime_ns) != (found.size, found.mtime_ns):
        return Step(file, "verify", "never verified" if record is None else "changed since it was verified", models)
    if file.sha256 is not None and record.sha256 != file.sha256:
        return Step(file, "fetch", "another version of it is there", models, left)
    return Step(file, "present", "verified before", models)


def _ordered(steps: list[Step], models: tuple[Model, ...]) -> tuple[Step, ...]:
    """Small shared files first, then model by model, the one that is usable soonest first."""
    shared = sorted((s for s in steps if len(s.models) > 1 and s.file.expected < SMALL_BYTES), key=lambda s: s.bytes)
    ordered = {step.file.id: step for step in shared}
    missing = {model.id: sum(s.bytes for s in steps if model.id in s.models) for model in models}
    for model in sorted(models, key=lambda m: missing[m.id]):
        mine = sorted((s for s in steps if model.id in s.models), key=lambda s: s.bytes)
        ordered.update({s.file.id: s for s in mine if s.file.id not in ordered})
    return tuple(ordered.values())


def _notes(
    steps: tuple[Step, ...], models: tuple[Model, ...], host: Host, left_out: Iterable[Model]
) -> tuple[str, ...]:
    notes = [
        f"{m.id} is not fetched: it is for tier {' or '.join(m.tiers)}, this GPU's is {host.tier};"
        f" name it in MODELS or set GPU_TIER to fetch it all the same"
        for m in left_out
    ]
    told: dict[str, list[str]] = {}
    for model in models:
        for what in _about_model(model, host):
            told.setdefault(what, []).append(model.id)
    notes += [f"{', '.join(names)}: {what}" for what, names in told.items()]
    todo = [step.file for step in steps if step.action in ("fetch", "list")]
    return tuple(dict.fromkeys([*notes, *_about_files(todo, host)]))


def _about_model(model: Model, host: Host) -> Iterator[str]:
    if model.no_node:
        yield f"nothing in the image loads it: {model.no_node}"
    if model.needs:
        yield f"needs {model.needs}"
    if host.vram_gb is not None and model.vram_gb is not None and host.vram_gb < model.vram_gb * 0.95:
        slow = model.vram_gb_offload
        if slow is not None and host.vram_gb >= slow * 0.95:
            end = "it runs with parts of it in RAM, slowly"
        else:
            end = "this GPU does not hold it" + (f" (least: {slow:g} GB)" if slow else "")
        yield f"wants {model.vram_gb:g} GB of GPU memory, {host.vram_gb:.0f} GB are there: {end}"


def _about_files(files: Iterable[File], host: Host) -> list[str]:
    """Say what is to be known of files, each thing once with the files that it is true of."""
    told: dict[str, list[str]] = {}
    for file in files:
        for what in _about_file(file, host):
            told.setdefault(what, []).append(file.to)
    return [f"{what}: {', '.join(names)}" for what, names in told.items()]


def _about_file(file: File, host: Host) -> Iterator[str]:
    if file.gate and not (host.civitai_key if isinstance(file.source, CivitAI) else host.hf_token):
        yield f"{file.gate}, and {'CIVITAI_API_KEY' if isinstance(file.source, CivitAI) else 'HF_TOKEN'} is not set"
    if file.non_commercial:
        yield f"not for commercial use ({file.licence})"
    if file.evidence != "confirmed":
        yield f"that the source has it is not confirmed ({file.evidence} evidence)"
    if isinstance(file.source, Snapshot):
        if not file.about:
            yield "the size is not established"
    elif not file.sha256 and not file.blob:
        what = "the hash is not" if file.size else "neither hash nor size is"
        yield f"{what} established, what the source states is checked"


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
        f"{where} {plan.free_bytes / 1e9:.2f} GB free; {plan.fetch_bytes / 1e9:.2f} GB are to be fetched"
        f" and {MARGIN_BYTES / 1e9:.2f} GB must stay free, {short / 1e9:.2f} GB are missing: nothing was fetched."
        f" Use a larger volume, delete files (`hearmeman models prune` names what no enabled model needs),"
        f" or ask for fewer models: the largest is {largest.id} with {_bytes_for(steps, largest) / 1e9:.2f} GB."
    )


def _bytes_for(steps: Iterable[Step], model: Model) -> int:
    return sum(step.bytes for step in steps if model.id in step.models)
