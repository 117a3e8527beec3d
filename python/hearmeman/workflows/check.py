"""Checks every workflow with every choice against ComfyUI's nodes and against the files of its models; pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from hearmeman.models.catalogue import Catalogue
from hearmeman.settings import Settings
from hearmeman.workflows import library
from hearmeman.workflows.library import Workflow
from hearmeman.workflows.schema import Schema, mistakes, reachable

_NO_GRAPHS = ("ENABLE_XTTS", "ENABLE_CHATTERBOX", "COQUI_TOS_AGREED", "ENABLE_INFCAM")
"""Toggles for servers and commands, which have no graph."""


def problems(workflows: Mapping[str, Workflow], schema: Schema, catalogue: Catalogue) -> list[str]:
    """One sentence per mistake: workflow, choice, node, input, and what is allowed."""
    found = []
    for workflow in workflows.values():
        graph = library.graph(workflow)
        for options in combinations(workflow):
            place = workflow.name + "".join(f" {name}={value}" for name, value in options.items())
            models = workflow.needs(options)
            unknown = [name for name in models if name not in {model.id for model in catalogue.models}]
            if unknown:
                found.append(f"{place}: the catalogue has no model {', '.join(unknown)}")
                continue
            chosen = reachable(library.choose(graph, workflow, options), schema)
            wrong = mistakes(chosen, schema, files_of(catalogue, models))
            found += [f"{place}: {mistake}" for mistake in wrong]
    return list(dict.fromkeys(found))


def combinations(workflow: Workflow) -> Iterator[dict[str, str]]:
    """Every combination of choices."""
    names = [*workflow.choices]
    for values in itertools.product(*(workflow.choices[name].options for name in names)):
        yield dict(zip(names, values, strict=True))


def files_of(catalogue: Catalogue, models: tuple[str, ...]) -> set[str]:
    """Where these models' files go, below the models folder."""
    wanted = {name for model in catalogue.models if model.id in models for name in model.files}
    return {file.to for file in catalogue.files if file.id in wanted}


def toggles_without(workflows: Mapping[str, Workflow], catalogue: Catalogue) -> list[str]:
    """Variables that fetch models no workflow uses."""
    used = {
        model
        for workflow in workflows.values()
        for options in combinations(workflow)
        for model in workflow.needs(options)
    }
    toggles = {name.upper() for name in Settings.model_fields}
    served = {name for model in catalogue.models if model.id in used for name in model.when}
    asked = {name for model in catalogue.models for name, value in model.when.items() if value == "true"}
    return sorted(asked & toggles - served - set(_NO_GRAPHS))
