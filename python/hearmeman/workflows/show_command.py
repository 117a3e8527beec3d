"""`hearmeman workflows show`: a workflow's inputs and models, what is missing, and whether it fits this GPU."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearmeman import terminal
from hearmeman.workflows import library, schema
from hearmeman.workflows.prepare import is_upload, kind_of_file
from hearmeman.workflows.run_command import missing_models

if TYPE_CHECKING:
    from hearmeman.tune.models import Fit


def run(workflow: library.Workflow, folder: Path, as_json: bool, environ: Mapping[str, str]) -> int:
    """Print it; returns the exit code."""
    parameters = parameters_of(workflow, folder, environ)
    needs = workflow.needs(workflow.defaults(environ))
    missing = missing_models(needs, environ)
    fits, problem = _fits(needs, environ)
    if as_json:
        facts = {"name": workflow.name, "title": workflow.title, "about": workflow.about, "parameters": parameters}
        judged = [dataclasses.asdict(fit) for fit in fits]
        print(
            json.dumps({**facts, "models": list(needs), "missing": missing, "gpu": problem, "fits": judged}, indent=2)
        )
        return 0
    lines = [*terminal.wrapped(workflow.title), *terminal.wrapped(workflow.about), ""]
    rows = []
    for parameter in parameters:
        choices = parameter["choices"]
        takes = f"; {', '.join(map(str, choices))}" if choices and len(choices) <= 8 else ""
        rows.append((parameter["name"], _short(parameter["default"]), f"{parameter['help']}{takes}"))
    lines += terminal.table(rows, head=("--set", "default", "meaning"), wraps=(1, 2))
    said = [f"models: {', '.join(needs) or 'none'}"]
    if missing:
        said.append(f"missing: {', '.join(missing)}; fetch: hearmeman models fetch {' '.join(missing)}")
    elif needs:
        said.append("all its models are here")
    said += [_verdict(fit) for fit in fits] if not problem else [f"GPU: {problem}"] if needs else []
    lines += ["", *(line for text in said for line in terminal.wrapped(text))]
    lines += [
        "",
        "run: hearmeman workflows run "
        f"{workflow.file if workflow.is_own else workflow.name}{_needed(workflow, folder, environ)}",
    ]
    print("\n".join(lines))
    return 0


def parameters_of(workflow: library.Workflow, folder: Path, environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """What --set takes: name, type, default, choices or range, help."""
    nodes = schema.read(folder / schema.FILE)
    graph = library.graph(workflow)
    defaults = workflow.defaults(environ)
    found: list[dict[str, Any]] = [
        {"name": name, "type": "choice", "default": defaults[name], "choices": [*choice.options], "help": choice.help}
        for name, choice in workflow.choices.items()
    ]
    for key, parameter in workflow.inputs.items():
        node, name = parameter.places[0]
        # A node that only some options insert is looked at as it is in the graph.
        kind = graph[node]["class_type"]
        spec = nodes.spec(kind, name)
        low, high, step = schema.range_of(spec)
        upload = is_upload(nodes, graph, node, name)
        value = f"a {kind_of_file(kind)}" if upload else graph[node]["inputs"][name]
        choices = schema.choices_of(spec)
        found.append(
            {"name": key, "type": _type(spec, upload, choices, kind), "default": value, "choices": choices}
            | {"help": parameter.help, "least": low, "most": high, "step": step}
        )
    return found


def _type(spec: Any, upload: bool, choices: list[Any] | None, class_type: str) -> str:
    if upload:
        return kind_of_file(class_type)
    named = {"INT": "whole number", "FLOAT": "number", "BOOLEAN": "true or false"}
    return "choice" if choices else named.get(schema.kind_of(spec), "text")


def _needed(workflow: library.Workflow, folder: Path, environ: Mapping[str, str]) -> str:
    """The least that `run` needs: the files loaded with the default choices."""
    nodes = schema.read(folder / schema.FILE)
    chosen = library.choose(library.graph(workflow), workflow, workflow.defaults(environ))
    graph = chosen if workflow.is_own else schema.reachable(chosen, nodes)
    files = [
        key
        for key, parameter in workflow.inputs.items()
        if any(node in graph and is_upload(nodes, graph, node, name) for node, name in parameter.places)
    ]
    return "".join(f" --set {name}=FILE" for name in files)


def _fits(needs: tuple[str, ...], environ: Mapping[str, str]) -> tuple[tuple[Fit, ...], str]:
    """Check every model against this machine's GPU, or say why that is impossible."""
    from hearmeman.models import catalogue
    from hearmeman.settings import load
    from hearmeman.tune import command, machine, models, tuner

    settings = load(environ)
    memory = machine.gather(settings.models_path)
    if not memory.gpus:
        return (), memory.gpu_problem or "none here"
    known = catalogue.read(Path(settings.model_catalogue))
    engines = {name: tuner.VOICE_GB[name] for name in command.voices(settings)}
    wanted = [model for model in known.models if model.id in needs]
    return models.fits(wanted, known.models, memory.gpus[0].vram_mib / 1024, engines), ""


def _verdict(fit: Fit) -> str:
    needs = (
        ""
        if fit.needs_gb is None
        else (f": it needs {fit.needs_gb:g} GB of GPU memory, and there are {fit.has_gb:.1f}")
    )
    verdict = {"fits": "fits this GPU", "slow": "runs slowly here", "too large": "does not fit this GPU"}
    text = verdict.get(fit.verdict, "its GPU memory use has not been measured")
    return f"{fit.model} {text}{needs}{f'; {fit.advice}' if fit.advice else ''}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
