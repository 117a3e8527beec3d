"""Renders the catalogue and a plan, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from hearmeman.models.catalogue import Catalogue, Model
from hearmeman.models.plan import Plan, Step


def table(rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Align columns; those in `right` to the right."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return [
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def catalogue(known: Catalogue, asked: set[str]) -> str:
    """Render all models, what asks for them and what they take."""
    rows = [("", "model", "disk GB", "GPU GB", "asked for by", "title")]
    for model in known.models:
        size, exact = _size(known, model)
        rows.append(
            (
                "*" if model.id in asked else "",
                model.id,
                f"{exact}{size / 1e9:.2f}" if size else "?",
                "" if model.vram_gb is None else f"{model.vram_gb:g}",
                " ".join(f"{name}={value}" for name, value in model.when.items()) or f"MODELS={model.id}",
                model.title + (" (nothing in the image loads it)" if model.no_node else ""),
            )
        )
    end = "* is asked for by the settings; ~ is a rounded size, > lacks a file of unknown size, ? is all unknown"
    return "\n".join([*table(rows, right=(2, 3)), end])


def catalogue_json(known: Catalogue, asked: set[str]) -> str:
    """Render the catalogue as it is, each model with whether it is asked for."""
    models = []
    for model in known.models:
        size, exact = _size(known, model)
        models.append({**model.model_dump(), "asked_for": model.id in asked, "bytes": size, "bytes_exact": not exact})
    return json.dumps({"models": models, "files": [file.model_dump() for file in known.files]}, indent=2)


def _size(known: Catalogue, model: Model) -> tuple[int, str]:
    """Sum a model's bytes; the mark is '' when that is exact, '~' when rounded, '>' when a size is missing."""
    files = [file for file in known.files if file.id in model.files]
    mark = ">" if not all(f.expected for f in files) else "" if all(f.size for f in files) else "~"
    return sum(file.expected for file in files), mark


def plan(made: Plan) -> str:
    """Render a plan: files in their order, notes, sums."""
    notes = [f"note: {note}" for note in made.notes]
    if not made.steps:
        why = "nothing to fetch" if made.notes else "no model is asked for"
        return "\n".join([f"{why}: `hearmeman models list` shows every model and what asks for it", *notes])
    rows = [("do", "GB", "file", "why", "for")]
    for step in made.steps:
        rows.append((step.action, _gigabytes(step), step.file.to, step.reason, ",".join(step.models)))
    lines = table(rows, right=(1,))
    if notes:
        lines += ["", *notes]
    todo = made.having("fetch", "list")
    least = f"at least {made.fetch_bytes / 1e9:.3f} GB, {len(made.unknown)} of them of unknown size"
    much = least if made.unknown else f"{made.fetch_bytes / 1e9:.3f} GB"
    free = f"{made.free_bytes / 1e9:.3f} GB are free"
    return "\n".join([*lines, "", f"{len(todo)} of {len(made.steps)} to fetch: {much}; {free}"])


def _gigabytes(step: Step) -> str:
    if step.action in ("fetch", "list") and not step.file.expected:
        return "?"
    return f"{'' if step.file.size else '~'}{step.bytes / 1e9:.3f}"


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
