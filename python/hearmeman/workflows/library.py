"""Reads the workflow index and puts settings into a graph; touches no network."""

from __future__ import annotations

import copy
import dataclasses
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


Place = tuple[str, str]
"""A node's id and the name of one of its inputs."""


@dataclass(frozen=True)
class Parameter:
    """An input that --set changes."""

    places: tuple[Place, ...]
    """Where its value goes."""
    help: str = ""
    """One line for people."""


@dataclass(frozen=True)
class Option:
    """One option of a choice: what it changes in the graph, and what it needs."""

    values: Mapping[Place, Any]
    """Input -> its value or link."""
    nodes: Mapping[str, Mapping[str, Any]]
    """Node -> its replacement."""
    models: tuple[str, ...] = ()
    """Catalogue ids of the models that it needs in addition to the workflow's."""


@dataclass(frozen=True)
class Choice:
    """A parameter whose options change several inputs, such as a full or a short run."""

    options: Mapping[str, Option]
    default: str
    help: str = ""
    """One line for people."""
    variable: str = ""
    """The pod's variable whose value is the default; empty if there is none."""


@dataclass(frozen=True)
class Workflow:
    """One entry of the index."""

    name: str
    title: str
    file: Path
    models: tuple[str, ...]
    """Catalogue ids of the models it needs, whatever is chosen."""
    inputs: Mapping[str, Parameter]
    """Name for --set -> where its value goes."""
    choices: Mapping[str, Choice]
    """Name for --set -> a choice among whole changes."""
    about: str = ""
    """A sentence or two: what it is for, and what to watch out for."""
    ram_gb: float = 0.0
    """RAM in GB that must be free while its models are loaded; 0: no known limit."""
    is_own: bool = False
    """Whether it is the user's own file, not an entry of the index."""

    def needs(self, chosen: Mapping[str, str]) -> tuple[str, ...]:
        """Catalogue ids of the models that it needs with these choices."""
        more = (model for name, value in chosen.items() for model in self.choices[name].options[value].models)
        return tuple(dict.fromkeys([*self.models, *more]))

    def defaults(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Each choice's default: the pod's variable where it names an option, else the choice's own."""
        found = {}
        for name, choice in self.choices.items():
            given = environ.get(choice.variable, "")
            match = next((option for option in choice.options if option.lower() == given.lower()), "")
            found[name] = match or choice.default
        return found


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
        inputs = {key: _parameter(value) for key, value in entry.get("inputs", {}).items()}
        choices = {key: _choice(value) for key, value in entry.get("choices", {}).items()}
        models = tuple(str(model) for model in entry["models"])
        file = index.parent / str(entry["file"])
        about, ram = str(entry.get("about", "")), float(entry.get("ram_gb", 0))
        return Workflow(str(entry["name"]), str(entry["title"]), file, models, inputs, choices, about, ram)
    except KeyError as error:
        raise LibraryError(f"{index}: workflow {number} has no {error}; add it") from error
    except (TypeError, ValueError, AttributeError) as error:
        message = f'{index}: workflow {number} is wrong ({error}); an input is written key = {{ at = ["node.input"], help = "…" }}'
        raise LibraryError(message) from error


def _parameter(value: Mapping[str, Any]) -> Parameter:
    return Parameter(tuple(_place(text) for text in value["at"]), str(value.get("help", "")))


def _place(text: str) -> Place:
    node, dot, name = text.partition(".")
    if not (node and dot and name):
        raise ValueError(f"{text!r} is not node.input")
    return node, name


def _choice(value: Mapping[str, Any]) -> Choice:
    options = {
        name: Option(
            {_place(place): given for place, given in option.get("set", {}).items()},
            option.get("nodes", {}),
            tuple(str(model) for model in option.get("models", ())),
        )
        for name, option in value["options"].items()
    }
    default = str(value["default"])
    if default not in options:
        raise ValueError(f"the default {default} is not among the options {', '.join(options)}")
    return Choice(options, default, str(value.get("help", "")), str(value.get("variable", "")))


def find(workflows: Mapping[str, Workflow], name: str) -> Workflow:
    """The workflow of that name.

    Raises:
        UnknownWorkflowError: suggests the nearest name.
    """
    if name in workflows:
        return workflows[name]
    raise UnknownWorkflowError(f"no workflow is named {name}{_nearest(name, workflows)}")


def own(path: Path) -> Workflow:
    """The user's own graph, by its file's path: every value in it can be set as NODE.INPUT.

    Raises:
        LibraryError: there is no such file, or it is not in API format.
    """
    workflow = Workflow(path.name, path.stem, path, (), {}, {}, is_own=True)
    inputs = {
        f"{node}.{name}": Parameter(((node, name),), f"{entry['class_type']}'s")
        for node, entry in graph(workflow).items()
        for name, value in entry["inputs"].items()
        if not isinstance(value, list | dict)
    }
    return dataclasses.replace(workflow, inputs=inputs)


def is_path(name: str) -> bool:
    """Tell whether `name` is a path rather than a workflow's name."""
    return "/" in name or name.lower().endswith(".json")


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
        loaded: Graph = json.loads(workflow.file.read_text(encoding="utf-8"))
    except OSError as error:
        raise LibraryError(f"workflow {workflow.name}: cannot read {workflow.file} ({error.strerror})") from error
    except ValueError as error:
        raise LibraryError(f"workflow {workflow.name}: {workflow.file} is not JSON: {error}") from error
    wrong = not_api(loaded)
    if wrong:
        raise LibraryError(f"workflow {workflow.name}: {workflow.file} {wrong}")
    for key, parameter in workflow.inputs.items():
        for node, name in parameter.places:
            if node not in loaded or name not in loaded[node].get("inputs", {}):
                raise LibraryError(
                    f"workflow {workflow.name}: input {key} names {name} of node {node}, which is not in it"
                )
    return loaded


def not_api(loaded: object) -> str:
    """Say why something is not a graph in API format; empty if it is one."""
    way = "in ComfyUI open it and choose Workflow > Export (API), which saves another file, and give that one"
    if not isinstance(loaded, dict):
        return f"is not a workflow: {way}"
    if isinstance(loaded.get("nodes"), list):
        return f"is in the editor's format, which ComfyUI cannot run: {way}"
    if set(loaded) == {"prompt"} or isinstance(loaded.get("prompt"), dict):
        return 'is a complete request: give only the graph, which is under "prompt"'
    if not loaded:
        return "is empty"
    for node, entry in loaded.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("class_type"), str):
            return f"is not in API format, since {node!r} is not a node with a class_type: {way}"
        if not isinstance(entry.get("inputs"), dict):
            return f"is not in API format, since node {node} has no inputs: {way}"
    return ""


def chosen(workflow: Workflow, settings: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Every choice's option: from `settings`, else its default.

    Raises:
        BadValueError: there is no such option.
    """
    found = workflow.defaults(environ)
    for key, text in map(_pair, settings):
        if key in workflow.choices:
            options = workflow.choices[key].options
            if text not in options:
                raise BadValueError(f"--set {key}={text}: it takes {' or '.join(options)}")
            found[key] = text
    return found


def choose(graph: Graph, workflow: Workflow, options: Mapping[str, str]) -> Graph:
    """A copy of `graph` with each choice's changes made."""
    result = copy.deepcopy(graph)
    for name, value in options.items():
        option = workflow.choices[name].options[value]
        result.update(copy.deepcopy(dict(option.nodes)))
        for (node, key), given in option.values.items():
            result[node]["inputs"][key] = given
    return result


_FORMATS = {
    "mp4": "video/h264-mp4",
    "h264-mp4": "video/h264-mp4",
    "video/mp4": "video/h264-mp4",
    "webm": "video/webm",
    "webp": "image/webp",
    "gif": "image/gif",
}
"""A film format's usual name -> VHS_VideoCombine's name."""


def apply(workflow: Workflow, graph: Graph, settings: Sequence[str]) -> Graph:
    """A copy of `graph` with each `key=value` put where the index says; a value takes the type of the one it replaces.

    Raises:
        UnknownInputError: no such input; suggests one.
        BadValueError: the value does not parse, or the '=' is missing.
    """
    result = copy.deepcopy(graph)
    for key, text in map(_pair, settings):
        if key in workflow.choices:
            continue
        if key not in workflow.inputs:
            raise UnknownInputError(
                f"{workflow.name} has no input {key}{_nearest(key, [*workflow.inputs, *workflow.choices])}"
            )
        for node, name in workflow.inputs[key].places:
            old = result[node]["inputs"][name]
            is_film = key == "format" and isinstance(old, str) and "/" in old
            result[node]["inputs"][name] = _parse(key, _FORMATS.get(text.lower(), text) if is_film else text, old)
    return result


def _pair(setting: str) -> tuple[str, str]:
    key, equals, text = setting.partition("=")
    if not equals:
        raise BadValueError(f"--set {setting}: write it as --set key=value")
    return key, text


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
