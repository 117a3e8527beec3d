"""Reads the workflow index and puts settings into a graph; touches no network."""

from __future__ import annotations

import copy
import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearmeman.errors import HearmemanError, UsageError

Graph = dict[str, Any]


class LibraryError(HearmemanError):
    """The workflows folder, its index or a graph cannot be used."""


class UnknownWorkflowError(UsageError):
    """No workflow has that name."""


class UnknownInputError(UsageError):
    """The workflow has no input of that name."""


class BadValueError(UsageError):
    """A value given with --set does not parse."""


@dataclass(frozen=True)
class Workflow:
    """One entry of the index."""

    name: str
    title: str
    file: Path
    models: tuple[str, ...]
    """Catalogue ids of the models it needs."""
    inputs: Mapping[str, tuple[str, str]]
    """Name for --set -> node id and the node's input."""


def load(folder: Path) -> dict[str, Workflow]:
    """Every workflow of the index in `folder`, by name.

    Raises:
        LibraryError: the index is missing or wrong; names the file and the entry.
    """
    index = folder / "index.toml"
    try:
        table = tomllib.loads(index.read_text(encoding="utf-8"))
    except OSError as error:
        raise LibraryError(
            f"there is no workflow index at {index} ({error.strerror}): give the folder with --dir"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LibraryError(f"{index} is not valid TOML: {error}") from error
    found: dict[str, Workflow] = {}
    for number, entry in enumerate(table.get("workflow", []), start=1):
        workflow = _entry(index, number, entry)
        if workflow.name in found:
            raise LibraryError(f"{index}: two workflows are named {workflow.name}; rename one")
        found[workflow.name] = workflow
    return found


def _entry(index: Path, number: int, entry: Mapping[str, Any]) -> Workflow:
    try:
        inputs = {}
        for key, (node, name) in entry.get("inputs", {}).items():
            inputs[key] = (str(node), str(name))
        models = tuple(str(model) for model in entry["models"])
        file = index.parent / str(entry["file"])
        return Workflow(str(entry["name"]), str(entry["title"]), file, models, inputs)
    except KeyError as error:
        raise LibraryError(f"{index}: workflow {number} has no {error}; add it") from error
    except (TypeError, ValueError, AttributeError) as error:
        message = f'{index}: workflow {number} is wrong ({error}); an input is written key = ["node id", "input"]'
        raise LibraryError(message) from error


def find(workflows: Mapping[str, Workflow], name: str) -> Workflow:
    """The workflow of that name.

    Raises:
        UnknownWorkflowError: suggests the nearest name.
    """
    if name in workflows:
        return workflows[name]
    raise UnknownWorkflowError(f"no workflow is named {name}{_nearest(name, workflows)}")


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f": did you mean {near[0]}?"
    return f": there are {', '.join(names)}" if names else ": it has none"


def graph(workflow: Workflow) -> Graph:
    """The workflow's graph in API format.

    Raises:
        LibraryError: the file is missing, not JSON, or an input of the index names what the graph lacks.
    """
    try:
        loaded = json.loads(workflow.file.read_text(encoding="utf-8"))
    except OSError as error:
        raise LibraryError(f"workflow {workflow.name}: cannot read {workflow.file} ({error.strerror})") from error
    except ValueError as error:
        raise LibraryError(f"workflow {workflow.name}: {workflow.file} is not JSON: {error}") from error
    if not isinstance(loaded, dict) or not all(isinstance(n, dict) and "class_type" in n for n in loaded.values()):
        message = (
            f"workflow {workflow.name}: {workflow.file} is not in API format: save it with Export (API) in ComfyUI"
        )
        raise LibraryError(message)
    for key, (node, name) in workflow.inputs.items():
        if node not in loaded or name not in loaded[node].get("inputs", {}):
            raise LibraryError(f"workflow {workflow.name}: input {key} names {name} of node {node}, which is not in it")
    return loaded


def apply(workflow: Workflow, graph: Graph, settings: Sequence[str]) -> Graph:
    """A copy of `graph` with each `key=value` put where the index says; a value takes the type of the one it replaces.

    Raises:
        UnknownInputError: no such input; suggests one.
        BadValueError: the value does not parse, or the '=' is missing.
    """
    result = copy.deepcopy(graph)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise BadValueError(f"--set {setting}: write it as --set key=value")
        if key not in workflow.inputs:
            raise UnknownInputError(f"{workflow.name} has no input {key}{_nearest(key, workflow.inputs)}")
        node, name = workflow.inputs[key]
        result[node]["inputs"][name] = _parse(key, text, result[node]["inputs"][name])
    return result


_TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _parse(key: str, text: str, old: Any) -> Any:
    if isinstance(old, bool):
        if text.lower() not in _TRUTH:
            raise BadValueError(f"--set {key}={text}: it takes true or false")
        return _TRUTH[text.lower()]
    if isinstance(old, int):
        if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
            return int(text[1:], 16)
        try:
            return int(text, 16 if text.lower().startswith("0x") else 10)
        except ValueError:
            raise BadValueError(f"--set {key}={text}: it takes a whole number, like {old}") from None
    if isinstance(old, float):
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if value != value or value in (float("inf"), float("-inf")):
            raise BadValueError(f"--set {key}={text}: it takes a number, like {old}")
        return value
    if isinstance(old, str):
        return text
    raise BadValueError(f"--set {key}={text}: that input is a link to another node and cannot be set")
