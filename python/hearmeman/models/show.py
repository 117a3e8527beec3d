"""Renders the catalogue and a plan, for people and as JSON."""

from __future__ import annotations

import json

from hearmeman.models.catalogue import Catalogue, Model
from hearmeman.models.plan import Plan, Step
from hearmeman.terminal import pairs, size, table


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
    lines = table(rows, ("", "model", "disk GB", "GPU GB", "what it is, and what asks for it"), right=(2, 3))
    end = ["* is asked for by the settings; ~ is a rounded size,", "> lacks a file of unknown size, ? is all unknown"]
    return "\n".join([*lines, *end])


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
        why = "nothing to fetch" if made.notes else "no model is asked for"
        return "\n".join([f"{why}: `hearmeman models list` shows every model and what asks for it", *notes])
    rows = [(step.action, _size_of(step), _file_of(step), ", ".join(step.models)) for step in made.steps]
    lines = table(rows, ("do", "size", "file", "for"), right=(1,), wraps=(2, 3))
    if notes:
        lines += ["", *notes]
    todo = made.having("fetch", "list")
    much = size(made.fetch_bytes)
    if made.unknown:
        much = f"at least {much}, {len(made.unknown)} of them of unknown size"
    return "\n".join(
        [*lines, "", f"{len(todo)} of {len(made.steps)} to fetch: {much}; {size(made.free_bytes)} are free"]
    )


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
