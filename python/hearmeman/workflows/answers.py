"""Interprets ComfyUI's answers: outputs, refusals, how a prompt ended; pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hearmeman.errors import HearmemanError
from hearmeman.workflows.library import Graph


class NotReachableError(HearmemanError):
    """Nothing answers at the address, or it is not ComfyUI."""


class AccessError(HearmemanError):
    """The gate in front of ComfyUI refuses access."""


class RefusedError(HearmemanError):
    """ComfyUI refused the prompt; `class_type` is the missing node class, if that is the reason."""

    def __init__(self, message: str, class_type: str = "") -> None:
        super().__init__(message)
        self.class_type = class_type


class RunFailedError(HearmemanError):
    """ComfyUI accepted the prompt but did not finish it; `exception_type` is what a node raised, `node` its id."""

    def __init__(self, message: str, node: str = "", exception_type: str = "") -> None:
        super().__init__(message)
        self.node, self.exception_type = node, exception_type


class TimedOutError(HearmemanError):
    """The prompt did not end in time."""


@dataclass(frozen=True)
class Output:
    """One file that ComfyUI reports."""

    node: str
    kind: str
    """Its key in the answer: images, audio, gifs, …"""
    filename: str
    subfolder: str
    type: str
    """output, temp or input: which of ComfyUI's folders it is in."""

    @property
    def path(self) -> str:
        """Path below that folder."""
        return f"{self.subfolder}/{self.filename}" if self.subfolder else self.filename


@dataclass(frozen=True)
class Result:
    """A finished prompt."""

    prompt_id: str
    outputs: tuple[Output, ...]
    from_cache: bool
    """True when ComfyUI ran no node, since an earlier prompt was the same: the files are that prompt's."""
    texts: tuple[tuple[str, str], ...] = ()
    """Node and text, if a node returned text instead of a file."""


@dataclass(frozen=True)
class Progress:
    """A prompt's progress: the running node, and its steps if it reports them."""

    node: str
    class_type: str
    value: float | None = None
    max: float | None = None


Report = Callable[[Progress], None]


def outputs(entry: Mapping[str, Any]) -> tuple[Output, ...]:
    """Every file in a history entry: any item with a `filename`, under any key."""
    found = []
    for node, parts in entry.get("outputs", {}).items():
        for kind, items in parts.items():
            for item in items if isinstance(items, list) else []:
                if isinstance(item, dict) and isinstance(item.get("filename"), str):
                    place = str(item.get("subfolder") or ""), str(item.get("type") or "output")
                    found.append(Output(str(node), str(kind), item["filename"], *place))
    return tuple(found)


def texts(entry: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Every text in a history entry, with its node: what nodes show instead of saving a file."""
    return tuple(
        (str(node), item)
        for node, parts in entry.get("outputs", {}).items()
        for items in parts.values()
        for item in (items if isinstance(items, list) else [items])
        if isinstance(item, str) and item
    )


def unknown_class(body: Mapping[str, Any]) -> str:
    """The class that this ComfyUI lacks according to a 400 answer; empty if the answer is about something else."""
    error = body.get("error")
    is_it = isinstance(error, dict) and error.get("type") in ("missing_node_type", "invalid_prompt")
    return str(((error or {}).get("extra_info") or {}).get("class_type") or "") if is_it else ""


def refusal(body: Mapping[str, Any], graph: Graph) -> str:
    """The content of a 400 answer, in sentences that name node, class and input."""
    error = body.get("error")
    if isinstance(error, str):
        return error
    error = error if isinstance(error, dict) else {}
    extra = error.get("extra_info") or {}
    if error.get("type") == "missing_node_type":
        node, name = extra.get("node_id"), extra.get("class_type")
        return f"node {node} is a {name}, which this ComfyUI does not have"
    lines = [
        _sentence(node, entry, problem, graph)
        for node, entry in (body.get("node_errors") or {}).items()
        for problem in entry.get("errors", [])
    ]
    return "; ".join(lines) or f"{error.get('message', 'no reason given')} {error.get('details', '')}".strip()


def _sentence(node: str, entry: Mapping[str, Any], problem: Mapping[str, Any], graph: Graph) -> str:
    name = (problem.get("extra_info") or {}).get("input_name")
    kind = entry.get("class_type") or graph.get(node, {}).get("class_type")
    message = str(problem.get("message", ""))
    details = str(problem.get("details") or "")
    said = message if details in ("", name) else f"{message} ({details})"
    return f"node {node} ({kind}){f', input {name}' if name else ''}: {said}"


def result_of(prompt_id: str, entry: Mapping[str, Any], graph: Graph) -> Result:
    status = entry.get("status") or {}
    events: list[tuple[str, dict[str, Any]]] = [(str(m[0]), m[1]) for m in status.get("messages", [])]
    for name, data in events:
        node = f"node {data.get('node_id')} ({data.get('node_type')})"
        if name == "execution_error":
            reason = f"{data.get('exception_type')}: {str(data.get('exception_message', '')).strip()}"
            place, kind = str(data.get("node_id")), str(data.get("exception_type"))
            message = f"{node} failed with {reason}. ComfyUI's log has the full traceback"
            raise RunFailedError(message, place, kind)
        if name == "execution_interrupted":
            raise RunFailedError(f"the workflow was interrupted at {node}; run it again if that was not meant")
    if status and not status.get("completed", True):
        raise RunFailedError(f"ComfyUI ended prompt {prompt_id} with status {status.get('status_str')}; see its log")
    cached = {str(node) for name, data in events if name == "execution_cached" for node in data.get("nodes", [])}
    return Result(prompt_id, outputs(entry), bool(graph) and cached >= set(graph), texts(entry))


def targets(folder: Path, output: Output, prompt_id: str) -> Iterator[Path]:
    """Possible paths for an output in `folder`: its own path, then with the prompt's id, then with numbers.

    Raises:
        RunFailedError: the reported path leads out of the folder.
    """
    path = PurePosixPath(output.path)
    if path.is_absolute() or ".." in path.parts or not output.filename:
        raise RunFailedError(f"ComfyUI reports the file {output.path!r}, which leads out of the folder; not saved")
    wanted = folder / path
    yield wanted
    yield wanted.with_name(f"{wanted.stem}.{prompt_id[:8]}{wanted.suffix}")
    for number in itertools.count(2):
        yield wanted.with_name(f"{wanted.stem}.{prompt_id[:8]}-{number}{wanted.suffix}")
