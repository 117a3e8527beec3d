"""What a person should know of a plan before it is carried out: GPU memory, tokens, licences, what is not known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hearmeman.models.catalogue import CivitAI, File, Model, Snapshot


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


def notes(todo: Iterable[File], models: Iterable[Model], host: Host, left_out: Iterable[Model]) -> tuple[str, ...]:
    """Say what is to be known of the models asked for, of those left out, and of the files still to be fetched."""
    said = [
        f"{m.id} is not fetched: it is for tier {' or '.join(m.tiers)}, {_whose(host)} {host.tier};"
        f" name it in MODELS or set GPU_TIER to fetch it anyway"
        for m in left_out
    ]
    models = list(models)
    asked = {model.id for model in models}
    told: dict[str, list[str]] = {}
    for model in models:
        for what in _about_model(model, host, asked):
            told.setdefault(what, []).append(model.id)
    said += [f"{', '.join(names)}: {what}" for what, names in told.items()]
    return tuple(dict.fromkeys([*said, *_about_files(todo, host)]))


def _whose(host: Host) -> str:
    return "this GPU's is" if host.vram_gb is not None else "no GPU was found, so the tier is"


def _about_model(model: Model, host: Host, asked: set[str]) -> Iterator[str]:
    if model.no_node:
        yield f"nothing in the image loads it: {model.no_node}"
    if model.needs and not asked.intersection(model.needs_one_of):
        yield f"needs {model.needs}"
    if host.vram_gb is not None and model.vram_gb is not None and host.vram_gb < model.vram_gb * 0.95:
        slow = model.vram_gb_offload
        if slow is not None and host.vram_gb >= slow * 0.95:
            end = "it runs with parts of it in RAM, slowly"
        else:
            end = "it does not fit on this GPU" + (f" (least: {slow:g} GB)" if slow else "")
        about = "about " if model.vram_estimated else ""
        yield f"needs {about}{model.vram_gb:g} GB of GPU memory, and there are {host.vram_gb:.0f} GB: {end}"


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
    if file.note:
        yield file.note
    if file.non_commercial:
        yield f"not for commercial use ({file.licence})"
    if file.evidence != "confirmed":
        yield f"nobody has confirmed that the source has it ({file.evidence} evidence)"
    if isinstance(file.source, Snapshot):
        if not file.about:
            yield "its size is not known"
    elif not file.sha256 and not file.blob:
        what = "its hash is not known" if file.size is not None else "neither its hash nor its size is known"
        yield f"{what}, so it is checked against what the source reports"
