"""Reads how an output was made, from its record in the bucket or from the file itself, and compares it with this
machine.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearmeman.errors import HearmemanError
from hearmeman.workflows.library import Graph

_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_TEXT = 64 << 20


class NoRecordError(HearmemanError):
    """Nothing says how the output was made."""


class NotTheSameError(HearmemanError):
    """This machine lacks what the output was made with, so it cannot be made again."""


@dataclass(frozen=True)
class Made:
    """How an output was made."""

    graph: Graph
    """The whole graph in API format."""
    models: tuple[Mapping[str, Any], ...] = ()
    """Each with `file`, below the models folder, and `sha256`, None if it was not verified."""
    inputs: tuple[Mapping[str, Any], ...] = ()
    """Files from ComfyUI's input folder, each with `file` and `sha256`."""
    image: Mapping[str, Any] | None = None
    """Identifies the image; None if unknown."""


def parse(content: bytes, what: str) -> Made:
    """Read a record.

    Raises:
        NoRecordError: it is not a record, or from a later version.
    """
    try:
        raw = json.loads(content)
        if int(raw["version"]) > 1:
            raise NoRecordError(f"{what} was written by a later version of hearmeman: take a newer image")
        graph, models, inputs = raw["graph"], raw["models"], raw["inputs"]
        if not all("class_type" in node and "inputs" in node for node in graph.values()):
            raise ValueError("it holds no graph")
        if not all(isinstance(one["file"], str) for one in (*models, *inputs)):
            raise ValueError("its files have no names")
        return Made(graph, tuple(models), tuple(inputs), raw.get("image") or None)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoRecordError(f"{what} does not say how an output was made: {error}") from error


def from_file(path: Path) -> Made:
    """Read a record that was downloaded, or the graph that ComfyUI wrote into a PNG.

    Raises:
        NoRecordError: the file does not say it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NoRecordError(f"{path} cannot be read: {error.strerror}") from error
    if content[:1] == b"{":
        return parse(content, str(path))
    try:
        text = next((value for key, value in _png_texts(content) if key == b"prompt"), None)
        graph = json.loads(text) if text else None
    except (ValueError, struct.error, zlib.error):
        graph = None
    if not isinstance(graph, dict) or not all(isinstance(n, dict) and "class_type" in n for n in graph.values()):
        raise NoRecordError(
            f"{path} does not say how it was made: only PNGs that ComfyUI saved hold their graph; of what the sync "
            "uploaded, give the object's key"
        )
    return Made(graph)


def _png_texts(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not content.startswith(_PNG):
        return
    at = len(_PNG)
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        data = content[at + 8 : at + 8 + length]
        key, _, rest = data.partition(b"\0")
        if kind == b"tEXt":
            yield key, rest
        elif kind == b"zTXt":
            yield key, zlib.decompressobj().decompress(rest[1:], _LARGEST_TEXT)
        elif kind == b"iTXt":
            # Two flags, then a language and a translated key, both ended by a zero byte.
            text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
            yield key, zlib.decompressobj().decompress(text, _LARGEST_TEXT) if rest[:1] == b"\1" else text
        at += 12 + length


def differences(made: Made, hashes: Mapping[str, str | None], inputs: Mapping[str, str | None]) -> list[str]:
    """List what is missing or different here; `hashes` and `inputs` give each file's hash here, None if missing."""
    found = []
    for one in made.models:
        name, wanted = one["file"], one.get("sha256")
        if name not in hashes:
            continue
        here = hashes[name]
        if here is None:
            found.append(f"the model {name} is missing")
        elif wanted and here != wanted:
            found.append(f"the model {name} is a different one: its sha256 is {here[:12]}…, and was {wanted[:12]}…")
    for one in made.inputs:
        name, wanted = one["file"], one.get("sha256")
        here = inputs.get(name)
        if here is None:
            found.append(f"the input {name} is missing: put it into ComfyUI's input folder")
        elif wanted and here != wanted:
            found.append(f"the input {name} is a different file: its sha256 is {here[:12]}…, and was {wanted[:12]}…")
    return found


def unverified(made: Made) -> list[str]:
    """Name the models whose exact file is unknown."""
    return [str(one["file"]) for one in made.models if not one.get("sha256")]
