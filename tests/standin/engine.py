"""The queue and the history, and the one worker that runs prompts and tells of it as the real one does."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from standin import nodes

Json = dict[str, Any]
Send = Callable[[str, Json, str | None], None]
_PIECES = 16


class InterruptError(Exception):
    """POST /interrupt came while a prompt ran."""


@dataclass
class Item:
    """One prompt in the queue, in the order of the real queue's tuple."""

    number: float
    prompt_id: str
    prompt: Json
    extra: Json
    outputs: list[str]

    def row(self) -> list[Any]:
        """The item as /queue and /history show it."""
        return [self.number, self.prompt_id, self.prompt, self.extra, self.outputs]


@dataclass
class Engine:
    """Runs one prompt at a time; `send(event, data, client)` delivers websocket messages, to all without a client."""

    output: Path
    write_seconds: float
    send: Send
    keep_metadata: bool = True
    keep_cache: bool = True
    pending: list[Item] = field(default_factory=list)
    running: Item | None = None
    history: dict[str, Json] = field(default_factory=dict)
    last_node: str | None = None
    _cache: dict[str, tuple[Any, Json | None]] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _interrupt: bool = False

    def remaining(self) -> int:
        """How many prompts wait or run."""
        return len(self.pending) + (self.running is not None)

    def changed(self) -> None:
        """Tell every client the queue's length, and wake the worker."""
        self.send("status", {"status": {"exec_info": {"queue_remaining": self.remaining()}}}, None)
        self._wake.set()

    def put(self, item: Item) -> None:
        """Queue a checked prompt."""
        self.pending.append(item)
        self.pending.sort(key=lambda one: one.number)
        self.changed()

    def interrupt(self, prompt_id: str | None) -> None:
        """Stop the running prompt before its next node or file; only if it is `prompt_id`, when one is named."""
        if self.running is not None and prompt_id in (None, self.running.prompt_id):
            self._interrupt = True

    async def work(self) -> None:
        """Run prompts for ever."""
        while True:
            while not self.pending:
                self._wake.clear()
                await self._wake.wait()
            item = self.running = self.pending.pop(0)
            self._interrupt = False
            await _Run(self, item).run()
            self.running = None
            self.changed()

    async def write(self, pending: nodes.Pending, progress: Callable[[int, int], None]) -> None:
        """Write straight to the final name in pieces, as a reader of a slow volume sees the real one write."""
        content = await asyncio.to_thread(pending.content)
        step = -(-len(content) // _PIECES)
        with pending.path.open("wb", buffering=0) as file:
            for index in range(_PIECES):
                file.write(content[index * step : (index + 1) * step])
                progress(index + 1, _PIECES)
                await asyncio.sleep(self.write_seconds / _PIECES)

    def stop_if_asked(self) -> None:
        """Raises InterruptError once after POST /interrupt."""
        if self._interrupt:
            self._interrupt = False
            raise InterruptError

    def known(self, signature: str) -> tuple[Any, Json | None] | None:
        """The value and result of an earlier run of the same node with the same inputs."""
        return self._cache.get(signature) if self.keep_cache else None

    def keep(self, signature: str, value: Any, result: Json | None) -> None:
        """Remember a node's value and result."""
        self._cache[signature] = (value, result)


class _Run:
    """One prompt's way through the nodes."""

    def __init__(self, engine: Engine, item: Item) -> None:
        self.engine, self.item = engine, item
        client = item.extra.get("client_id")
        self.client = client if isinstance(client, str) else None
        self.messages: list[list[Any]] = []
        self.states: dict[str, Json] = {}
        self.values: dict[str, Any] = {}
        self.results: dict[str, Json] = {}
        self.done: list[str] = []
        self.node = ""

    def tell(self, event: str, data: Json, record: bool = False, all_clients: bool = False) -> None:
        data = {**data, "prompt_id": self.item.prompt_id}
        if record:
            data["timestamp"] = int(time.time() * 1000)
            self.messages.append([event, data])
        if self.client is not None or all_clients:
            self.engine.send(event, data, self.client)

    async def run(self) -> None:
        self.tell("execution_start", {}, record=True)
        status = "error"
        try:
            await self._nodes()
            self.tell("execution_success", {}, record=True)
            status = "success"
        except InterruptError:
            about = {"node_id": self.node, "node_type": self._class(self.node), "executed": self.done}
            self.tell("execution_interrupted", about, record=True, all_clients=True)
        except Exception as error:
            self.tell("execution_error", self._failure(error), record=True)
        self.engine.last_node = None
        self.engine.history[self.item.prompt_id] = {
            "prompt": self.item.row(),
            "outputs": self.results,
            "status": {"status_str": status, "completed": status == "success", "messages": self.messages},
            "meta": {node: self._meta(node) for node in self.results},
        }
        if self.client is not None:
            self.tell("executing", {"node": None})

    async def _nodes(self) -> None:
        order = _order(self.item.prompt, self.item.outputs)
        signatures: dict[str, str] = {}
        for node in order:
            signatures[node] = _signature(self.item.prompt[node], signatures)
        cached = [node for node in order if self.engine.known(signatures[node])]
        self.tell("execution_cached", {"nodes": cached}, record=True)
        for node in order:
            self.node = node
            self.engine.stop_if_asked()
            known = self.engine.known(signatures[node])
            if known is None:
                self.engine.last_node = node
                self.tell("executing", {"node": node, "display_node": node})
                self._state(node, "running", 0, 1)
                known = await self._execute(node)
                self._state(node, "finished", 1, 1)
                self.engine.keep(signatures[node], *known)
            self.values[node], result = known
            self.done.append(node)
            if result is not None:
                self.results[node] = result
                self.tell("executed", {"node": node, "display_node": node, "output": result})
            # A real node takes its time; other clients must get a turn here.
            await asyncio.sleep(0)

    async def _execute(self, node: str) -> tuple[Any, Json | None]:
        inputs = self.item.prompt[node]["inputs"]
        given = {name: self.values[value[0]] if isinstance(value, list) else value for name, value in inputs.items()}
        engine, kind = self.engine, self._class(node)
        if kind == "EmptyImage":
            return nodes.empty_image(given), None
        if kind == "EmptyAudio":
            return nodes.empty_audio(given), None
        if kind in nodes.MORE:
            value, files = nodes.MORE[kind](engine.output, given)
            for index, file in enumerate(files):
                engine.stop_if_asked()
                await engine.write(file, partial(self._progress, node, index, len(files)))
            return value, {"gifs": [dict(file.result) for file in files]} if files else None
        text = nodes.metadata(self.item.prompt, self.item.extra) if engine.keep_metadata else {}
        source, key, save = (
            ("images", "images", nodes.save_image) if kind == "SaveImage" else ("audio", "audio", nodes.save_audio)
        )
        pending = save(engine.output, given[source], given["filename_prefix"], text, time.time())
        total = len(pending)
        for index, file in enumerate(pending):
            engine.stop_if_asked()
            await engine.write(file, partial(self._progress, node, index, total))
        result: Json = {key: [dict(file.result) for file in pending]}
        return given[source], result

    def _progress(self, node: str, index: int, files: int, part: int, parts: int) -> None:
        value, most = index * parts + part, files * parts
        self._state(node, "running", value, most)
        self.tell("progress", {"value": value, "max": most, "node": node})

    def _state(self, node: str, state: str, value: int, most: int) -> None:
        self.states[node] = {
            **self._meta(node),
            "value": float(value),
            "max": float(most),
            "state": state,
            "prompt_id": self.item.prompt_id,
        }
        self.tell("progress_state", {"nodes": dict(self.states)})

    def _class(self, node: str) -> str:
        return str(self.item.prompt[node]["class_type"])

    @staticmethod
    def _meta(node: str) -> Json:
        return {"node_id": node, "display_node_id": node, "parent_node_id": None, "real_node_id": node}

    def _failure(self, error: Exception) -> Json:
        return {
            "node_id": self.node,
            "node_type": self._class(self.node),
            "executed": self.done,
            "exception_message": f"{error}\n",
            "exception_type": type(error).__name__,
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {name: [str(v)] for name, v in self.item.prompt[self.node]["inputs"].items()},
            "current_outputs": self.done,
        }


def _order(prompt: Mapping[str, Any], outputs: list[str]) -> list[str]:
    order: list[str] = []

    def visit(node: str) -> None:
        if node in order:
            return
        for value in prompt[node]["inputs"].values():
            if isinstance(value, list) and value[0] in prompt:
                visit(value[0])
        order.append(node)

    for output in outputs:
        visit(output)
    return order


def _signature(node: Json, known: Mapping[str, str]) -> str:
    inputs = {
        name: ["link", known.get(str(value[0]), ""), value[1]] if isinstance(value, list) else value
        for name, value in node["inputs"].items()
    }
    return json.dumps([node["class_type"], inputs], sort_keys=True)
