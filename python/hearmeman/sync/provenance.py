"""How an output was made: the graph, the image and the models' hashes, kept once in the bucket under their own hash."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from hearmeman.folder import Folder
from hearmeman.models.plan import Record
from hearmeman.redact import redacted

FOLDER = "provenance"
METADATA = "provenance"
"""The output's metadata that names its record: a hash of 64 digits, since R2 takes no more than 8 KB of it, S3 2 KB."""
VERSION = 1
_FRESH = 30.0
"""Seconds for which the list of verified models is believed."""
_KEPT = 1000
_LARGEST_INPUT = 1 << 30
"""Bytes above which an input is not hashed."""
MODEL_ENDINGS = (".safetensors", ".gguf", ".ckpt", ".pth", ".pt", ".bin", ".onnx", ".sft")


@dataclass(frozen=True)
class Provenance:
    """One record, ready to be stored."""

    sha256: str
    """Of its content, which names it."""
    body: bytes
    """JSON."""


def key_of(prefix: str, sha256: str) -> str:
    """Name a record's object."""
    return f"{prefix}/{FOLDER}/{sha256}.json"


def texts_of(graph: Mapping[str, Any]) -> Iterator[str]:
    """Give every text that a node of a graph is given."""
    for node in graph.values():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        for value in (inputs or {}).values():
            if isinstance(value, str) and value:
                yield value


def models_of(graph: Mapping[str, Any], records: Mapping[str, Record], root: Path) -> list[dict[str, Any]]:
    """Name the model files that a graph uses, each with the hash that was verified; none where nobody verified it."""
    found: dict[str, dict[str, Any]] = {}
    for text in set(texts_of(graph)):
        known = [to for to in records if f"/{text.strip('/')}/" in f"/{to}/"] if "\n" not in text else []
        for to in known:
            found[to] = {"file": to, "sha256": _verified(root / to, records[to])}
        if not known and text.lower().endswith(MODEL_ENDINGS):
            found[text] = {"file": text, "sha256": None}
    return [found[name] for name in sorted(found)]


def _verified(path: Path, record: Record) -> str | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return record.sha256 if (seen.st_size, seen.st_mtime_ns) == (record.size, record.mtime_ns) else None


class Recorder:
    """Makes records; safe from any thread."""

    def __init__(
        self,
        graph_of: Callable[[str], Mapping[str, Any] | None],
        read_records: Callable[[], Mapping[str, Record]],
        models: Path,
        inputs: Path,
        image: Mapping[str, Any],
    ) -> None:
        """`graph_of` gives a prompt's graph, `read_records` what was verified below `models`; `inputs` are ComfyUI's."""
        self._graph_of, self._read_records = graph_of, read_records
        self._models, self._inputs, self._image = models, inputs, image
        self._made: dict[str, Provenance] = {}
        self._records: Mapping[str, Record] = {}
        self._read_at = float("-inf")
        self._lock = threading.Lock()

    def of(self, prompt_id: str) -> Provenance | None:
        """Give the record of a prompt; None where nobody knows its graph."""
        with self._lock:
            if prompt_id not in self._made:
                graph = self._graph_of(prompt_id) if prompt_id else None
                if graph is None:
                    return None
                self._made[prompt_id] = self._make(graph)
                for old in list(self._made)[:-_KEPT]:
                    del self._made[old]
            return self._made[prompt_id]

    def _make(self, graph: Mapping[str, Any]) -> Provenance:
        if time.monotonic() - self._read_at > _FRESH:
            self._records, self._read_at = self._read_records(), time.monotonic()
        models, inputs = models_of(graph, self._records, self._models), self._inputs_of(graph)
        content = {"version": VERSION, "graph": graph, "image": self._image, "models": models, "inputs": inputs}
        # In its own order: ComfyUI writes the graph into the file as it was given.
        body = json.dumps(redacted(content), indent=1).encode()
        return Provenance(hashlib.sha256(body).hexdigest(), body)

    def _inputs_of(self, graph: Mapping[str, Any]) -> list[dict[str, Any]]:
        found = []
        for text in sorted(set(texts_of(graph))):
            try:
                with open_input(self._inputs, text) as file:
                    small = os.fstat(file.fileno()).st_size <= _LARGEST_INPUT
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest() if small else None
            except (OSError, ValueError):  # Most texts name no file.
                continue
            found.append({"file": text, "sha256": sha256})
        return found


def open_input(inputs: Path, name: str) -> BufferedReader:
    """Open a file of ComfyUI's input folder. ComfyUI's nodes write there, so no link is followed.

    Raises:
        OSError: there is no plain file of that name.
        ValueError: no file can have it.
    """
    with Folder(inputs) as folder:
        return os.fdopen(folder.open(name), "rb")


def image_facts(raw: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """What names an image: its digest where the pod was given it, and the parts that decide what it makes."""
    named = {name: raw[name] for name in ("tier", "comfyui_rev", "environment_key") if raw.get(name)}
    content = hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest() if raw else ""
    return {**named, **({"image_json_sha256": content} if raw else {}), **({"digest": digest} if digest else {})}
