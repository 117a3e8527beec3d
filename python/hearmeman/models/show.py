"""Renders the catalogue and a plan, for people and as JSON."""

from __future__ import annotations

import json

from hearmeman.models.catalogue import Catalogue, Model
from hearmeman.models.plan import Plan
from hearmeman.terminal import size, table


def catalogue(known: Catalogue, asked: set[str]) -> str:
    """Render all models, what asks for them and what they take."""
    head = ("", "model", "disk GB", "GPU GB", "asked for by", "title")
    rows = []
    for model in known.models:
        stored, exact = _size(known, model)
        rows.append(
            (
                "*" if model.id in asked else "",
                model.id,
                f"{exact}{stored / 1e9:.2f}" if stored else "?",
                "" if model.vram_gb is None else f"{model.vram_gb:g}",
                " ".join(f"{name}={value}" for name, value in model.when.items()) or f"MODELS={model.id}",
                model.title + (" (nothing in the image loads it)" if model.no_node else ""),
            )
        )
    end = "* is asked for by the settings; ~ is a rounded size, > lacks a file whose size is not established, as ? does"
    return "\n".join([*table(rows, head, right=(2, 3), wraps=(4, 5)), end])


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
    mark = ">" if not all(f.expected for f in files) else "" if all(f.size for f in files) else "~"
    return sum(file.expected for file in files), mark


def plan(made: Plan) -> str:
    """Render a plan: files in their order, notes, sums."""
    if not made.steps:
        return "no model is asked for: `hearmeman models list` names them and what asks for them"
    rows = []
    for step in made.steps:
        known = bool(step.bytes) or step.action in ("present", "verify")
        rows.append((step.action, size(step.bytes) if known else "?", step.file.to, step.reason, ",".join(step.models)))
    lines = table(rows, ("do", "size", "file", "why", "for"), right=(1,), wraps=(2, 3, 4))
    if made.notes:
        lines += ["", *(f"note: {note}" for note in made.notes)]
    todo = made.having("fetch", "list")
    return "\n".join(
        [
            *lines,
            "",
            f"{len(todo)} of {len(made.steps)} to fetch: {size(made.fetch_bytes)}; {size(made.free_bytes)} are free",
        ]
    )


def plan_json(made: Plan) -> str:
    """Render a plan as JSON."""
    steps = [
        {
            "id": step.file.id,
            "to": step.file.to,
            "action": step.action,
            "reason": step.reason,
            "bytes": step.bytes,
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
        "free_bytes": made.free_bytes,
        "notes": made.notes,
    }
    return json.dumps(content, indent=2)
