"""Talks to ComfyUI: submits a prompt, follows it, collects its outputs. Imports aiohttp: load it late."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

import aiohttp

from hearmeman.errors import HearmemanError
from hearmeman.workflows.library import Graph


class NotReachableError(HearmemanError):
    """Nothing answers at the address, or what answers is no ComfyUI."""


class RefusedError(HearmemanError):
    """ComfyUI did not take the prompt."""


class RunFailedError(HearmemanError):
    """ComfyUI took the prompt and did not finish it."""


class TimedOutError(HearmemanError):
    """The prompt did not end in the time given."""


@dataclass(frozen=True)
class Output:
    """One file that ComfyUI reports."""

    node: str
    kind: str
    """The key it stands under: images, audio, gifs, …"""
    filename: str
    subfolder: str
    type: str
    """output, temp or input: the folder of ComfyUI it lies in."""

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


@dataclass(frozen=True)
class Progress:
    """Where a prompt is: the node that runs, and its steps where it tells them."""

    node: str
    class_type: str
    value: float | None = None
    max: float | None = None


Report = Callable[[Progress], None]
POLL_SECONDS = 0.5
SILENCE_SECONDS = 5.0
"""How often the history is asked while events are awaited."""


def outputs(entry: Mapping[str, Any]) -> tuple[Output, ...]:
    """Every file in a history entry: whatever key it stands under, an item with a `filename` is a file."""
    found = []
    for node, parts in entry.get("outputs", {}).items():
        for kind, items in parts.items():
            for item in items if isinstance(items, list) else []:
                if isinstance(item, dict) and isinstance(item.get("filename"), str):
                    place = str(item.get("subfolder") or ""), str(item.get("type") or "output")
                    found.append(Output(str(node), str(kind), item["filename"], *place))
    return tuple(found)


def refusal(body: Mapping[str, Any], graph: Graph) -> str:
    """What a 400 answer says, in sentences that name node, class and input."""
    error = body.get("error")
    if isinstance(error, str):
        return error
    error = error if isinstance(error, dict) else {}
    extra = error.get("extra_info") or {}
    if error.get("type") == "missing_node_type":
        node, name = extra.get("node_id"), extra.get("class_type")
        return f"node {node} is a {name}, which this ComfyUI does not have: use an image that carries it"
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


class Client:
    """One ComfyUI at `url`; use it with `async with`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    @contextlib.asynccontextmanager
    async def _call(self, method: str, path: str, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None
        try:
            async with self._session.request(method, self.url + path, **more) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise NotReachableError(
                f"ComfyUI does not answer at {self.url}: {reason}. It is not started, still starting, or at another "
                "address: look at `hearmeman status`, or give its address with --url"
            ) from error

    async def _json(self, path: str) -> dict[str, Any]:
        async with self._call("GET", path) as response:
            text = await response.text(errors="replace")
            try:
                body = json.loads(text) if response.status == 200 else None
            except ValueError:
                body = None
        if not isinstance(body, dict):
            raise NotReachableError(
                f"{self.url}{path} answers {response.status} and not as ComfyUI does: check the address in --url"
            )
        return body

    async def submit(self, graph: Graph, client_id: str) -> str:
        """Queue `graph`; returns its prompt id. ComfyUI sends its events to `client_id`.

        Raises:
            NotReachableError: nothing answers.
            RefusedError: ComfyUI refused it; says node, class and input.
        """
        async with self._call("POST", "/prompt", json={"prompt": graph, "client_id": client_id}) as response:
            text = await response.text(errors="replace")
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        body = body if isinstance(body, dict) else {}
        if response.status == 200 and "prompt_id" in body:
            if body.get("node_errors"):
                # Other outputs of the graph were queued; half a result is not what was asked for.
                await self.stop(str(body["prompt_id"]))
                raise RefusedError(f"ComfyUI refused a part of the workflow: {refusal(body, graph)}")
            return str(body["prompt_id"])
        if response.status == 400 and body:
            raise RefusedError(f"ComfyUI refused the workflow: {refusal(body, graph)}")
        raise RefusedError(f"ComfyUI answered {response.status} to the workflow, so it does not run: {text[:200]}")

    async def upload(self, path: Path) -> str:
        """Bring a file into ComfyUI's input folder; the name under which nodes find it.

        Raises:
            NotReachableError: nothing answers.
            RefusedError: ComfyUI does not take it.
        """
        # Quoted names would stay quoted: ComfyUI takes them as they come.
        form = aiohttp.FormData(quote_fields=False)
        with path.open("rb") as file:
            form.add_field("image", file, filename=path.name)
            form.add_field("type", "input")
            async with self._call("POST", "/upload/image", data=form) as response:
                text = await response.text(errors="replace")
        if response.status == 413:
            raise RefusedError(f"{path} is larger than ComfyUI takes: raise --max-upload-size in COMFYUI_ARGS")
        try:
            body = json.loads(text)
            return "/".join(filter(None, [str(body.get("subfolder", "")), str(body["name"])]))
        except (ValueError, KeyError, AttributeError):
            raise RefusedError(f"ComfyUI answered {response.status} to the file {path}: {text[:200]}") from None

    async def stop(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or interrupt it if it runs."""
        async with self._call("POST", "/queue", json={"delete": [prompt_id]}):
            pass
        async with self._call("POST", "/interrupt", json={"prompt_id": prompt_id}):
            pass

    async def run(
        self, graph: Graph, timeout: float, report: Report, queued: Callable[[str], None] = lambda prompt_id: None
    ) -> Result:
        """Submit `graph`, report its progress, and return what it made, at the latest after `timeout` seconds.

        `queued` is told the prompt's id as soon as ComfyUI has it.

        Raises:
            NotReachableError, RefusedError, RunFailedError, TimedOutError.
        """
        assert self._session is not None
        prompt_id = None
        # One for each run: ComfyUI sends events to the newest socket of an id alone.
        client_id = uuid.uuid4().hex
        try:
            async with asyncio.timeout(timeout):
                # Listening before submitting: a quick prompt is over before a later listener hears of it.
                socket = None
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    address = f"{self.url}/ws?clientId={client_id}"
                    socket = await self._session.ws_connect(address, heartbeat=20, max_msg_size=0)
                try:
                    prompt_id = await self.submit(graph, client_id)
                    queued(prompt_id)
                    if socket is not None:
                        await self._until_over(_listen(socket, prompt_id, graph, report), prompt_id)
                finally:
                    if socket is not None:
                        await socket.close()
                return _result(prompt_id, await self._history(prompt_id), graph)
        except TimeoutError:
            place = f"its id is {prompt_id}; it was not stopped" if prompt_id else "it was not queued"
            raise TimedOutError(
                f"the workflow did not end within {timeout:g} s: {place}; give more time with --timeout"
            ) from None

    async def _until_over(self, listening: Coroutine[Any, Any, None], prompt_id: str) -> None:
        """Listen; an end that no event told of is found in the history. A long silent step is no end."""
        task = asyncio.create_task(listening)
        try:
            while not (await asyncio.wait([task], timeout=SILENCE_SECONDS))[0]:
                if prompt_id in await self._json(f"/history/{prompt_id}"):
                    return
            await task
        finally:
            task.cancel()

    async def finish(self, prompt_id: str, graph: Graph, timeout: float) -> Result:
        """Wait for a prompt that was submitted before, by whomever, and return what it made.

        Raises:
            NotReachableError, RunFailedError, TimedOutError.
        """
        try:
            async with asyncio.timeout(timeout):
                return _result(prompt_id, await self._history(prompt_id), graph)
        except TimeoutError:
            raise TimedOutError(f"prompt {prompt_id} did not end within {timeout:g} s; it was not stopped") from None

    async def _history(self, prompt_id: str) -> dict[str, Any]:
        absent = 0
        while True:
            entry = (await self._json(f"/history/{prompt_id}")).get(prompt_id)
            if isinstance(entry, dict):
                return entry
            queue = await self._json("/queue")
            rows = [*queue.get("queue_running", []), *queue.get("queue_pending", [])]
            # It leaves the queue a moment before it enters the history.
            absent = 0 if any(prompt_id in row[1:2] for row in rows) else absent + 1
            if absent > 3:
                raise RunFailedError(
                    f"ComfyUI no longer knows prompt {prompt_id}: it was removed from the queue or ComfyUI was "
                    "restarted; run the workflow again"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def download(self, output: Output, target: Path) -> None:
        """Write one output's bytes to `target`, complete or not at all.

        Raises:
            NotReachableError: ComfyUI went away.
            RunFailedError: it does not hand the file out.
        """
        query = {"filename": output.filename, "subfolder": output.subfolder, "type": output.type}
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            async with self._call("GET", "/view", params=query) as response:
                if response.status != 200:
                    raise RunFailedError(f"ComfyUI answered {response.status} for {output.path}: it cannot be saved")
                with part.open("wb") as file:
                    async for piece in response.content.iter_chunked(1 << 20):
                        file.write(piece)
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)


async def _listen(socket: aiohttp.ClientWebSocketResponse, prompt_id: str, graph: Graph, report: Report) -> None:
    """Report progress until the prompt ends or the socket does; the history then tells how it ended."""
    async for message in socket:
        if message.type != aiohttp.WSMsgType.TEXT:
            continue  # Binary messages are previews.
        event = json.loads(message.data)
        kind, data = event.get("type"), event.get("data") or {}
        if data.get("prompt_id") != prompt_id:
            continue
        if kind in ("execution_success", "execution_error", "execution_interrupted"):
            return
        node = data.get("node")
        if kind == "executing" and node is None:
            return
        if kind in ("executing", "progress") and node is not None:
            name = str(graph.get(str(node), {}).get("class_type", node))
            report(Progress(str(node), name, data.get("value"), data.get("max")))


def _result(prompt_id: str, entry: Mapping[str, Any], graph: Graph) -> Result:
    status = entry.get("status") or {}
    events: list[tuple[str, dict[str, Any]]] = [(str(m[0]), m[1]) for m in status.get("messages", [])]
    for kind, data in events:
        node = f"node {data.get('node_id')} ({data.get('node_type')})"
        if kind == "execution_error":
            reason = f"{data.get('exception_type')}: {str(data.get('exception_message', '')).strip()}"
            raise RunFailedError(f"{node} failed with {reason}. ComfyUI's log has the whole traceback")
        if kind == "execution_interrupted":
            raise RunFailedError(f"the workflow was interrupted at {node}; run it again if that was not meant")
    if status and not status.get("completed", True):
        raise RunFailedError(f"ComfyUI ended prompt {prompt_id} with status {status.get('status_str')}; see its log")
    cached = {str(node) for kind, data in events if kind == "execution_cached" for node in data.get("nodes", [])}
    return Result(prompt_id, outputs(entry), bool(graph) and cached >= set(graph))


def target(folder: Path, output: Output, prompt_id: str) -> Path:
    """Where an output is saved under `folder`: its own path, or beside it with the prompt's id if that is taken.

    Raises:
        RunFailedError: the reported path leads out of the folder.
    """
    path = PurePosixPath(output.path)
    if path.is_absolute() or ".." in path.parts or not output.filename:
        raise RunFailedError(f"ComfyUI reports the file {output.path!r}, which leads out of the folder; not saved")
    wanted = folder / path
    return wanted.with_name(f"{wanted.stem}.{prompt_id[:8]}{wanted.suffix}") if wanted.exists() else wanted


@dataclass(frozen=True)
class Ran:
    """A run as the command tells it."""

    result: Result
    saved: tuple[Path, ...]
    seconds: float


async def run(
    url: str,
    graph: Graph,
    timeout: float,
    save: Path | None,
    report: Report,
    files: Mapping[tuple[str, str], Path] | None = None,
) -> Ran:
    """Run `graph` at `url` and, with `save`, download its outputs into that folder.

    `files` are uploaded first: (node, input) -> the file whose name goes there.
    """
    started = time.monotonic()
    async with Client(url) as client:
        await put_files(client, graph, files or {})
        result = await client.run(graph, timeout, report)
        seconds = time.monotonic() - started
        saved = []
        for output in result.outputs if save is not None else ():
            assert save is not None
            path = target(save, output, result.prompt_id)
            await client.download(output, path)
            saved.append(path)
    return Ran(result, tuple(saved), seconds)


async def put_files(client: Client, graph: Graph, files: Mapping[tuple[str, str], Path]) -> None:
    """Upload `files` and put their names into `graph`; one file is uploaded once."""
    names: dict[Path, str] = {}
    for (node, name), path in files.items():
        if path not in names:
            names[path] = await client.upload(path)
        graph[node]["inputs"][name] = names[path]
