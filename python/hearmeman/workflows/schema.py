"""The inputs and outputs of the pinned ComfyUI's nodes, and whether a graph in API format fits them; pure."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearmeman.errors import HearmemanError

FILE = "node-schema.json"
_WILD = ("*", "COMFY_MATCHTYPE_V3")
_FROM_MODELS = {
    ("VibeVoiceSingleSpeakerNode", "model"): "vibevoice",
    ("VibeVoiceMultipleSpeakersNode", "model"): "vibevoice",
}
"""Inputs that list model folders; the schema has no values for them, since the folders were empty when it was written.
"""
_NUMBERS = {"INT": (int,), "FLOAT": (int, float)}


class SchemaError(HearmemanError):
    """node-schema.json is missing or damaged."""


@dataclass(frozen=True)
class Mistake:
    """One thing in a graph that ComfyUI would refuse."""

    node: str
    """The node's id in the graph."""
    input: str
    """The input; empty if the problem is with the node."""
    text: str
    """What is wrong, and what is allowed."""

    def __str__(self) -> str:
        return f"node {self.node}{f', {self.input}' if self.input else ''}: {self.text}"


@dataclass(frozen=True)
class Schema:
    """The nodes of one ComfyUI."""

    version: str
    """ComfyUI's version."""
    nodes: Mapping[str, Any]
    """Class -> its inputs, outputs and module."""
    folders: Mapping[str, tuple[str, ...]]
    """Folder type -> folders below ComfyUI's base."""
    extensions: Mapping[str, tuple[str, ...]]
    """Folder type -> file suffixes that ComfyUI lists there; none means every file."""
    video_formats: Mapping[str, tuple[str, ...]]
    """VHS_VideoCombine's format -> its additional inputs."""

    def spec(self, class_type: str, name: str) -> Any:
        """What an input takes; None if the class has no such input."""
        node = self.nodes.get(class_type, {"inputs": {}})
        for kind in ("required", "optional"):
            if name in node["inputs"].get(kind, {}):
                return node["inputs"][kind][name]
        return None


def read(path: Path) -> Schema:
    """Read the schema, unless the same unchanged file was read before.

    Raises:
        SchemaError: it is missing or damaged.
    """
    try:
        now = path.stat()
        return _read(path, now.st_mtime_ns, now.st_size)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise SchemaError(
            f"{path} cannot be used: {reason}; it is part of the workflows: take it from the image again"
        ) from error


@functools.lru_cache(maxsize=2)
def _read(path: Path, changed: int, size: int) -> Schema:
    raw = json.loads(path.read_text(encoding="utf-8"))
    formats = {name: tuple(str(widget[0]) for widget in widgets) for name, widgets in raw["vhs_video_formats"].items()}
    folders = {name: tuple(places) for name, places in raw["model_folders"].items()}
    extensions = {name: tuple(ends) for name, ends in raw["model_extensions"].items()}
    return Schema(str(raw["comfyui_version"]), raw["nodes"], folders, extensions, formats)


def mistakes(graph: Mapping[str, Any], schema: Schema, files: Iterable[str] | None = None) -> list[Mistake]:
    """Find what ComfyUI would refuse in `graph`; `files` are the possible model files, as FOLDER/NAME."""
    known = None if files is None else frozenset(files)
    found: list[Mistake] = []
    for node_id, node in graph.items():
        class_type = node["class_type"]
        if class_type not in schema.nodes:
            near = difflib.get_close_matches(class_type, schema.nodes, n=1)
            found.append(
                Mistake(node_id, "", f"there is no class {class_type}{f'; did you mean {near[0]}?' if near else ''}")
            )
            continue
        found += _node(node_id, node, graph, schema, known)
    return found


def _node(
    node_id: str, node: Mapping[str, Any], graph: Mapping[str, Any], schema: Schema, known: frozenset[str] | None
) -> Iterator[Mistake]:
    class_type, inputs = node["class_type"], node["inputs"]
    declared = schema.nodes[class_type]["inputs"]
    for name in declared.get("required", {}):
        if name not in inputs:
            yield Mistake(node_id, name, f"{class_type} needs this input")
    extra = schema.video_formats.get(str(inputs.get("format")), ()) if class_type == "VHS_VideoCombine" else ()
    for name, value in inputs.items():
        spec = schema.spec(class_type, name)
        if spec is None:
            # A nested input is addressed as name.sub, and declared with its parent's choice.
            if name in extra or "." in name:
                continue
            names = [*declared.get("required", {}), *declared.get("optional", {})]
            yield Mistake(node_id, name, f"{class_type} has no such input; it has {', '.join(names)}")
        elif is_link(value):
            yield from _link(node_id, name, value, spec, graph, schema)
        else:
            yield from _value(node_id, class_type, name, value, spec, schema, known)


def reachable(graph: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """The part of `graph` that its output nodes need; unlinked nodes are left out."""
    wanted: set[str] = set()
    waiting = [node_id for node_id, node in graph.items() if _is_output(node["class_type"], schema)]
    while waiting:
        node_id = waiting.pop()
        if node_id not in wanted and node_id in graph:
            wanted.add(node_id)
            waiting += [value[0] for value in graph[node_id]["inputs"].values() if is_link(value)]
    return {node_id: node for node_id, node in graph.items() if node_id in wanted}


def _is_output(class_type: str, schema: Schema) -> bool:
    # Unknown nodes are kept: they may save something.
    node = schema.nodes.get(class_type)
    return node is None or bool(node.get("output_node"))


def is_link(value: object) -> bool:
    """Whether an input's value is a link to another node's output."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def _link(
    node_id: str, name: str, link: list[Any], spec: Any, graph: Mapping[str, Any], schema: Schema
) -> Iterator[Mistake]:
    source, number = link
    if source not in graph:
        yield Mistake(node_id, name, f"it is linked to node {source}, which is not in the graph")
        return
    class_type = graph[source]["class_type"]
    outputs = schema.nodes.get(class_type, {}).get("outputs")
    if outputs is None:
        return
    if not 0 <= number < len(outputs):
        yield Mistake(node_id, name, f"it is linked to output {number} of {class_type}, which has {len(outputs)}")
        return
    given, wanted = str(outputs[number]), kind_of(spec)
    if given in _WILD or wanted in _WILD or wanted == "":
        return
    if not set(given.split(",")) & set(wanted.split(",")):
        yield Mistake(node_id, name, f"it takes {wanted}, and output {number} of {class_type} ({source}) is {given}")


def kind_of(spec: Any) -> str:
    """An input's type, such as MODEL or INT; empty for a choice."""
    if isinstance(spec, str):
        return spec
    if isinstance(spec, list) and spec and spec[0] in ("INT", "FLOAT", "BOOLEAN", "STRING"):
        return str(spec[0])
    return ""


def choices_of(spec: Any) -> list[Any] | None:
    """An input's possible values; None if it is not a choice or the schema does not have them."""
    if isinstance(spec, list) and not kind_of(spec):
        return spec
    if isinstance(spec, dict) and "dynamic_combo" in spec:
        return [*spec["dynamic_combo"]]
    return None


def range_of(spec: Any) -> tuple[float | None, float | None, float | None]:
    """Minimum, maximum and step of a number; None where there is none."""
    if kind_of(spec) in _NUMBERS and isinstance(spec, list):
        low, high, step = (*spec[2:5], None, None, None)[:3]
        return low, high, step
    return None, None, None


def _value(
    node_id: str, class_type: str, name: str, value: Any, spec: Any, schema: Schema, known: frozenset[str] | None
) -> Iterator[Mistake]:
    if (class_type, name) in _FROM_MODELS:
        folder = _FROM_MODELS[class_type, name]
        if known is not None and f"{folder}/{value}" not in known:
            yield Mistake(node_id, name, f"models/{folder}/{value} is not fetched by this workflow's models")
        return
    if isinstance(spec, dict) and "folder" in spec:
        yield from _model(node_id, name, value, spec, schema, known)
        return
    choices = choices_of(spec)
    kind = kind_of(spec)
    if choices is not None and len(choices) > 1 and value not in choices:
        near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=3)
        yield Mistake(
            node_id,
            name,
            f"{value!r} is not one of its {len(choices)} values; the nearest are {', '.join(near) or 'none'}",
        )
    elif kind in _NUMBERS:
        yield from _number(node_id, name, value, kind, spec)
    elif kind == "BOOLEAN" and not isinstance(value, bool):
        yield Mistake(node_id, name, f"it takes true or false, not {value!r}")
    elif kind == "STRING" and not isinstance(value, str):
        yield Mistake(node_id, name, f"it takes a text, not {value!r}")
    elif kind and kind not in ("STRING", "BOOLEAN") and not isinstance(value, (str, int, float, dict, list)):
        yield Mistake(node_id, name, f"it takes {kind} from another node, not {value!r}")


def _number(node_id: str, name: str, value: Any, kind: str, spec: Any) -> Iterator[Mistake]:
    if isinstance(value, bool) or not isinstance(value, _NUMBERS[kind]):
        yield Mistake(node_id, name, f"it takes a {'whole number' if kind == 'INT' else 'number'}, not {value!r}")
        return
    problem = out_of_range(value, spec)
    if problem:
        yield Mistake(node_id, name, problem)


def out_of_range(value: float, spec: Any) -> str:
    """Say why a number is not allowed; empty if it is. Whole numbers keep the step, such as 4n+1 frames."""
    low, high, step = range_of(spec)
    if value == spec[1]:
        return ""  # Some nodes have a default that is off their own step.
    if (low is not None and value < low) or (high is not None and value > high):
        return (
            f"{value:g} is not within {low:g} to {high:g}"
            if low is not None and high is not None
            else f"{value:g} is too small"
        )
    if isinstance(value, int) and step and step > 1 and isinstance(low, int):
        rest = (value - low) % step
        if rest:
            down = value - int(rest)
            rule = f"a multiple of {step:g}" if low % step == 0 else f"{step:g}n+{low % step:g}"
            return f"{value} is not {rule}; the nearest are {down} and {down + int(step)}"
    return ""


def _model(
    node_id: str, name: str, value: Any, spec: Mapping[str, Any], schema: Schema, known: frozenset[str] | None
) -> Iterator[Mistake]:
    if known is None or spec["folder"] == "input" or value in spec.get("fixed", ()):
        return
    places = [
        place.removeprefix("models/") for place in schema.folders.get(spec["folder"], ()) if place.startswith("models/")
    ]
    if any(f"{place}/{value}" in known for place in places):
        ends = _ends(spec, schema)
        if ends and Path(value).suffix.lower() not in ends:
            yield Mistake(
                node_id, name, f"{value}: ComfyUI lists only {', '.join(ends)} in models/{' and models/'.join(places)}"
            )
        return
    elsewhere = [path for path in known if path.rpartition("/")[2] == value]
    where = (
        f"it is fetched to models/{elsewhere[0]}, and this node"
        if elsewhere
        else "none of this workflow's models has it; this node"
    )
    yield Mistake(node_id, name, f"{value}: {where} looks in models/{' and models/'.join(places)}")


def _ends(spec: Mapping[str, Any], schema: Schema) -> tuple[str, ...]:
    """File suffixes that a loader lists: its folder's, unless it also or only lists GGUF files. None means all."""
    ends = schema.extensions.get(spec["folder"], ())
    if ends == ("folder",):  # ComfyUI's word for a list of folders.
        return ()
    return {"gguf": (".gguf",), "any+gguf": (*ends, ".gguf") if ends else ()}.get(spec.get("ext", ""), ends)
