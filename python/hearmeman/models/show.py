"""Renders the catalogue and a plan, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hearmeman.models.asked import asked_for
from hearmeman.models.catalogue import Catalogue, File, Model
from hearmeman.models.plan import Plan, Step
from hearmeman.terminal import pairs, size, table, wrapped

if TYPE_CHECKING:
    from hearmeman.models.context import Context


def catalogue(known: Catalogue, asked: set[str]) -> str:
    """Render all models, what asks for them and what they take."""
    rows = []
    for model in known.models:
        stored, exact = _size(known, model)
        what = [model.title + (" (nothing in the image loads it)" if model.no_node else ""), *asked_by(model)]
        rows.append(
            (
                "*" if model.id in asked else "",
                model.id,
                f"{exact}{stored / 1e9:.2f}" if stored else "?",
                "" if model.vram_gb is None else f"{model.vram_gb:g}",
                "\n".join(what),
            )
        )
    lines = table(rows, ("", "model", "disk GB", "GPU GB", "what it is, and what enables it"), right=(2, 3))
    end = [
        "* is enabled by the settings; ~ is a rounded size;",
        "> has a file of unknown size; ? is unknown altogether",
    ]
    return "\n".join([*lines, *end])


def models(context: Context, chosen: Sequence[Model]) -> str:
    """Render all that is known of some models, and which of their files are there."""
    known, shown = context.catalogue, []
    asked = _by_settings(context)
    for model in chosen:
        stored, exact = _size(known, model)
        rows: list[tuple[str, object]] = [("model", model.id), ("what", model.title)]
        rows.append(("enabled", ("yes, by " if model.id in asked else "no; by ") + ", ".join(asked_by(model))))
        rows.append(("disk", f"{exact}{size(stored)}" if stored else "unknown"))
        if model.vram_gb is not None:
            less = "" if model.vram_gb_offload is None else f", or {model.vram_gb_offload:g} GB with parts of it in RAM"
            rows.append(("GPU", f"{model.vram_gb:g} GB{less}{' (estimated)' if model.vram_estimated else ''}"))
        rows += [("tiers", ", ".join(model.tiers))] if model.tiers else []
        rows += [("needs", model.needs)] if model.needs else []
        rows += [("loaded by", model.no_node or ", ".join(model.nodes))] if model.no_node or model.nodes else []
        for file in (file for file in known.files if file.id in model.files):
            there = (context.store.root / file.to).exists()
            rows.append(("file", f"{file.to}: {_sized(file)}, {'there' if there else 'not there'}"))
            rows.append(("from", str(file.source)))
            licence = (file.licence or "unknown") + (", not for commercial use" if file.non_commercial else "")
            rows.append(("licence", licence))
            rows += [("gate", file.gate)] if file.gate else []
            rows += [("note", file.note)] if file.note else []
        shown.append("\n".join(pairs(rows)))
    return "\n\n".join(shown)


def _sized(file: File) -> str:
    return f"{'~' if file.size is None else ''}{size(file.expected)}" if file.sized else "size unknown"


def models_json(context: Context, chosen: Sequence[Model]) -> str:
    """Render the same as JSON."""
    asked, known = _by_settings(context), context.catalogue
    found = []
    for model in chosen:
        files = [
            {**file.model_dump(), "there": (context.store.root / file.to).exists()}
            for file in known.files
            if file.id in model.files
        ]
        found.append({**model.model_dump(), "asked_for": model.id in asked, "files": files})
    return json.dumps(found, indent=2)


def _by_settings(context: Context) -> set[str]:
    """The models that the settings ask for, without those that the command names."""
    return {model.id for model in asked_for(context.catalogue, context.settings)}


def asked_by(model: Model) -> list[str]:
    """Name the variables that ask for a model, all of them together."""
    return [f"{name}={value}" for name, value in model.when.items()] or [f"MODELS={model.id}"]


def catalogue_json(known: Catalogue, asked: set[str]) -> str:
    """Render the catalogue as it is, each model with whether it is asked for."""
    models = []
    for model in known.models:
        stored, exact = _size(known, model)
        models.append({**model.model_dump(), "asked_for": model.id in asked, "bytes": stored, "bytes_exact": not exact})
    return json.dumps({"models": models, "files": [file.model_dump() for file in known.files]}, indent=2)


def _size(known: Catalogue, model: Model) -> tuple[int, str]:
    """Sum a model's bytes; the mark is '' when that is exact, '~' when rounded, '>' when a size is missing."""
    files = [file for file in known.files if file.id in model.files]
    mark = ">" if not all(f.sized for f in files) else "~" if any(f.size is None for f in files) else ""
    return sum(file.expected for file in files), mark


def plan(made: Plan) -> str:
    """Render a plan: files in their order, notes, sums."""
    notes = pairs(("note", note) for note in made.notes)
    if not made.steps:
        why = "nothing to fetch" if made.notes else "no model is enabled"
        hint = wrapped(f"{why}: `hearmeman models list` shows every model and what enables it")
        return "\n".join([*hint, *notes])
    rows = [(step.action, _size_of(step), _file_of(step), ", ".join(step.models)) for step in made.steps]
    lines = table(rows, ("do", "size", "file", "for"), right=(1,), wraps=(2, 3))
    if notes:
        lines += ["", *notes]
    todo = made.having("fetch", "list")
    much = size(made.fetch_bytes)
    if made.unknown:
        much = f"at least {much}, {len(made.unknown)} of them of unknown size"
    total = f"{len(todo)} of {len(made.steps)} to fetch: {much}; {size(made.free_bytes)} are free"
    return "\n".join([*lines, "", *wrapped(total)])


def _size_of(step: Step) -> str:
    if step.action in ("fetch", "list"):
        return f"{'~' if step.file.size is None else ''}{size(step.bytes)}" if step.file.sized else "?"
    return "" if step.file.size is None else size(step.file.size)


def _file_of(step: Step) -> str:
    plain = {"fetch": "not there", "present": "verified before", "list": "file list not fetched yet"}
    return step.file.to + ("" if plain.get(step.action) == step.reason else f" ({step.reason})")


def plan_json(made: Plan) -> str:
    """Render a plan as JSON."""
    steps = [
        {
            "id": step.file.id,
            "to": step.file.to,
            "action": step.action,
            "reason": step.reason,
            "bytes": None if step in made.unknown else step.bytes,
            "models": step.models,
            "source": str(step.file.source),
            "licence": step.file.licence,
        }
        for step in made.steps
    ]
    content = {
        "models": [model.id for model in made.models],
        "steps": steps,
        "fetch_bytes": made.fetch_bytes,
        "fetch_bytes_is_least": bool(made.unknown),
        "free_bytes": made.free_bytes,
        "notes": made.notes,
    }
    return json.dumps(content, indent=2)
