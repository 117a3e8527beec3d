"""A job's request, in worker-comfyui's format or ours; pure."""

from __future__ import annotations

import base64
import binascii
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from hearmeman.errors import UsageError
from hearmeman.workflows import library
from hearmeman.workflows.library import Graph

KEY_FIELDS = ("comfy_org_api_key", "api_key_comfy_org")
"""Both names of the key: worker-comfyui's code reads the first, ComfyUI and some guides the second."""
_FIELDS = ("workflow", "set", "images", "files", "s3Config", *KEY_FIELDS)


@dataclass(frozen=True)
class Bucket:
    """An S3 bucket and its credentials."""

    endpoint: str
    name: str
    key_id: str
    secret: str

    def __repr__(self) -> str:
        """Shows no key."""
        return f"Bucket({self.endpoint}, {self.name})"


@dataclass(frozen=True)
class Attached:
    """A job's file, by content or by address."""

    name: str
    """The name by which the graph's nodes find it."""
    content: bytes | None = None
    url: str = ""


@dataclass(frozen=True)
class Request:
    """One job."""

    name: str
    """A workflow in the image; empty if the job brings its own graph."""
    graph: Graph | None
    """The job's own graph."""
    settings: Mapping[str, str]
    """Settings for a workflow in the image."""
    uploads: Mapping[str, Attached]
    """Settings with a file."""
    attached: tuple[Attached, ...]
    """Files for ComfyUI's input folder."""
    api_key: str
    """For nodes that call Comfy.org; empty if the job brings none."""
    bucket: Bucket | None
    """The request's own bucket."""


def parse(job: Mapping[str, Any], most_bytes: int) -> Request:
    """Read a job; a file in it may have up to `most_bytes`.

    Raises:
        UsageError: says what is wrong with the request, before anything is done.
    """
    given = job.get("input")
    if isinstance(given, str):
        given = _json("input", given)
    if not isinstance(given, dict) or "workflow" not in given:
        raise UsageError(
            'input needs "workflow": a graph in API format (ComfyUI\'s Workflow > Export (API)), or the name of one of '
            "the image's workflows"
        )
    unknown = sorted(set(given) - set(_FIELDS))
    if unknown:
        raise UsageError(f"input has no field {unknown[0]!r}; it takes {', '.join(_FIELDS)}")
    workflow, settings = given["workflow"], given.get("set") or {}
    if workflow is None or (isinstance(workflow, str) and not workflow.strip()):
        raise UsageError("workflow is empty: give a graph in API format, or the name of one of the image's workflows")
    if not isinstance(settings, dict):
        raise UsageError('set takes an object, such as {"prompt": "a cat"}')
    graph: Graph | None = None
    if isinstance(workflow, str) and not workflow.lstrip().startswith("{"):
        if library.is_path(workflow):
            raise UsageError("workflow takes a name or a graph, not a path")
    else:
        graph = _graph(workflow)
        if settings:
            raise UsageError("set goes with the name of a workflow; change the values in your own graph itself")
    values = {key: value for key, value in settings.items() if not _is_file(value)}
    attached = {
        f"{field}[{number}]": _attached(f"{field}[{number}]", one, most_bytes)
        for field in ("images", "files")
        for number, one in enumerate(_list(field, given.get(field)))
    }
    _check_names(attached)
    return Request(
        name="" if graph is not None else workflow,
        graph=graph,
        settings={key: _text(key, value) for key, value in values.items()},
        uploads={
            key: _attached(f"set.{key}", {"name": "", "image": value}, most_bytes)
            for key, value in settings.items()
            if key not in values
        },
        attached=tuple(attached.values()),
        api_key=_key(given),
        bucket=_bucket(job.get("s3Config") or given.get("s3Config")),
    )


def _check_names(attached: Mapping[str, Attached]) -> None:
    """Refuse two files with the same name: the second would replace the first in ComfyUI's input folder."""
    places: dict[str, str] = {}
    for place, one in attached.items():
        if one.name in places:
            raise UsageError(
                f"{places[one.name]} and {place} are both named {one.name!r}, and ComfyUI keeps one file of a name: "
                "give each its own"
            )
        places[one.name] = place


def _key(given: Mapping[str, Any]) -> str:
    for field in KEY_FIELDS:
        if not isinstance(given.get(field), str | None):
            raise UsageError(f"{field} takes the key as text")
    return next((given[field] for field in KEY_FIELDS if given.get(field)), "")


def _graph(workflow: Any) -> Graph:
    if isinstance(workflow, str):
        workflow = _json("workflow", workflow)
    problem = library.not_api(workflow)
    if problem:
        raise UsageError(f"workflow {problem}")
    graph: Graph = workflow
    return graph


def _json(what: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} is text, but not valid JSON: {error}") from None


def _is_url(value: str) -> bool:
    return value[:8].lower().startswith(("https://", "http://"))


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and (_is_url(value) or value[:5].lower() == "data:")


def _text(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise UsageError(f"set.{key} takes a text, a number, true or false, or a file by its address or as a data URI")


def _list(field: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise UsageError(f'{field} takes a list of {{"name": …, "image": …}}')
    return value


def _attached(what: str, given: Any, most_bytes: int) -> Attached:
    source = (given.get("image") or given.get("data") or given.get("url")) if isinstance(given, dict) else None
    if not isinstance(source, str) or not isinstance(given.get("name"), str):
        raise UsageError(f'{what} needs "name" and "image": base64, a data URI, or an https address')
    if _is_url(source):
        try:
            path = urlsplit(source).path
        except ValueError as error:
            raise UsageError(f"{what}: its address cannot be read: {error}") from None
        return Attached(_safe(what, given["name"] or PurePosixPath(unquote(path)).name or "input"), url=source)
    kind, comma, text = source.partition(",") if source[:5].lower() == "data:" else ("", ",", source)
    if not comma or (kind and not kind.endswith(";base64")):
        raise UsageError(f"{what}: the data URI is not in base64")
    if len(text) * 3 // 4 > most_bytes + 3:
        raise UsageError(f"{what} has more than {most_bytes / 1e6:g} MB: raise WORKER_INPUT_MB")
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(f"{what} is not base64: nothing was run") from None
    if not content:
        raise UsageError(f"{what} is empty")
    ending = kind.removeprefix("data:").removesuffix(";base64").partition("/")[2].partition("+")[0]
    return Attached(_safe(what, given["name"] or f"input.{ending or 'bin'}"), content)


def _safe(what: str, name: str) -> str:
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise UsageError(f"{what}: the name {name!r} has characters that do not belong in a file name")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.name:
        raise UsageError(f"{what}: the name {name!r} would lead out of ComfyUI's input folder")
    if len(name.encode(errors="replace")) > 200:
        raise UsageError(f"{what}: its name is longer than 200 bytes")
    return str(path)


def _bucket(given: Any) -> Bucket | None:
    if given is None:
        return None
    keys = ("endpointUrl", "bucketName", "accessId", "accessSecret")
    if not isinstance(given, dict) or not all(isinstance(given.get(key), str) and given[key] for key in keys):
        raise UsageError(f"s3Config needs {', '.join(keys)}")
    return Bucket(*(given[key] for key in keys))
