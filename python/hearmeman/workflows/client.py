"""Talks to ComfyUI: submits a prompt, follows it, collects its outputs. Imports aiohttp: load it late."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from hearmeman.log import log
from hearmeman.workflows.answers import (
    AccessError,
    NotReachableError,
    Output,
    Progress,
    RefusedError,
    Report,
    Result,
    RunFailedError,
    TimedOutError,
    refusal,
    result_of,
    unknown_class,
)
from hearmeman.workflows.connection import Connection
from hearmeman.workflows.following import Ear, events, history
from hearmeman.workflows.library import Graph

PATIENCE_SECONDS = 30.0
"""How long to wait for a ComfyUI that stopped answering."""
STOP_SECONDS = 10.0
"""How long to try to stop a prompt after Ctrl-C."""


def new_id() -> str:
    """Choose a prompt's id: ComfyUI accepts the client's, so it can be recorded before the prompt is sent."""
    return str(uuid.uuid4())


class Client(Connection):
    """One ComfyUI at `url`, possibly behind a gate that needs `token`; use it with `async with`."""

    def __init__(self, url: str, token: str = "", patience: float | None = None) -> None:
        super().__init__(url, token)
        self._patience = PATIENCE_SECONDS if patience is None else patience

    async def object_info(self) -> dict[str, Any]:
        """Every node class of this ComfyUI, as in /object_info."""
        return await self.get_object("/object_info")

    async def submit(
        self, graph: Graph, client_id: str, prompt_id: str = "", extra: Mapping[str, str] | None = None
    ) -> str:
        """Queue `graph` as `prompt_id`; returns its id. ComfyUI sends its events to `client_id`. `extra` is given to
        nodes besides the graph, such as the key with which they call Comfy.org.

        Raises:
            NotReachableError: nothing answers.
            RefusedError: ComfyUI refused it; says node, class and input.
        """
        sent: dict[str, Any] = {"prompt": graph, "client_id": client_id, "prompt_id": prompt_id or new_id()}
        if extra:
            sent["extra_data"] = dict(extra)
        async with self.call("POST", "/prompt", json=sent) as response:
            text = await response.text(errors="replace")
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        body = body if isinstance(body, dict) else {}
        if response.status == 200 and "prompt_id" in body:
            if body.get("node_errors"):
                # ComfyUI queued the graph's other outputs, but half a result is not what was asked for.
                await self.stop(str(body["prompt_id"]))
                raise RefusedError(f"ComfyUI refused a part of the workflow: {refusal(body, graph)}")
            return str(body["prompt_id"])
        if response.status == 400 and body:
            raise RefusedError(f"ComfyUI refused the workflow: {refusal(body, graph)}", unknown_class(body))
        raise RefusedError(f"ComfyUI answered {response.status} to the workflow and will not run it: {text[:200]}")

    async def upload(self, path: Path, name: str = "") -> str:
        """Upload a file to ComfyUI's input folder; returns the name by which nodes find it. With `name`, which may have
        a folder before it, it gets that one, also where another file has it.

        Raises:
            NotReachableError: nothing answers.
            RefusedError: ComfyUI does not take it.
        """
        # Quoted names would stay quoted: ComfyUI uses them as they are.
        form = aiohttp.FormData(quote_fields=False)
        with path.open("rb") as file:
            folder, _, short = name.rpartition("/")
            form.add_field("image", file, filename=short or path.name)
            form.add_field("type", "input")
            if name:
                form.add_field("subfolder", folder)
                form.add_field("overwrite", "true")
            async with self.call("POST", "/upload/image", data=form) as response:
                text = await response.text(errors="replace")
        if response.status == 413:
            raise RefusedError(
                f"{path} is larger than ComfyUI accepts: raise --max-upload-size in COMFYUI_ARGS; "
                "RunPod's proxy lets at most 100 MB through"
            )
        try:
            body = json.loads(text)
            return "/".join(filter(None, [str(body.get("subfolder", "")), str(body["name"])]))
        except (ValueError, KeyError, AttributeError):
            raise RefusedError(f"ComfyUI answered {response.status} to the file {path}: {text[:200]}") from None

    async def stop(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or interrupt it if it runs."""
        # In this order, so that a prompt that starts in between is interrupted.
        async with self.call("POST", "/queue", json={"delete": [prompt_id]}):
            pass
        async with self.call("POST", "/interrupt", json={"prompt_id": prompt_id}):
            pass

    async def run(
        self,
        graph: Graph,
        timeout: float,
        report: Report,
        queued: Callable[[str], None] = lambda prompt_id: None,
        prompt_id: str = "",
        extra: Mapping[str, str] | None = None,
    ) -> Result:
        """Submit `graph`, report its progress, and return what it made, at the latest after `timeout` seconds.

        `queued` is called with the prompt's id as soon as ComfyUI has it. Who is cancelled (Ctrl-C) takes the prompt
        out of ComfyUI's queue, or interrupts it; after `timeout` seconds it goes on.

        Raises:
            AccessError, NotReachableError, RefusedError, RunFailedError, TimedOutError.
        """
        prompt_id, state = prompt_id or new_id(), "it was not queued"
        # One id per run: ComfyUI sends events only to an id's newest socket.
        client_id = uuid.uuid4().hex
        posting: asyncio.Task[str] | None = None
        early: list[Progress] | None = []

        def in_order(progress: Progress) -> None:
            # The first events may arrive before the answer to the prompt.
            report(progress) if early is None else early.append(progress)

        try:
            async with asyncio.timeout(timeout), events(self, client_id, prompt_id, graph, in_order) as ear:
                posting = asyncio.create_task(self.submit(graph, client_id, prompt_id, extra))
                prompt_id = await asyncio.shield(posting)
                state = f"its id is {prompt_id}; it was not stopped"
                queued(prompt_id)
                waiting, early = early, None
                for progress in waiting or ():
                    report(progress)
                return result_of(prompt_id, await history(self, prompt_id, ear, self._patience), graph)
        except TimeoutError:
            if posting is not None and not posting.done():
                posting.cancel()
                state = f"its id is {prompt_id}; ComfyUI did not say whether it accepted it"
            raise TimedOutError(
                f"the workflow did not end within {timeout:g} s: {state}; give more time with --timeout"
            ) from None
        except asyncio.CancelledError:
            if posting is not None:
                await self._give_up(prompt_id, posting)
            raise

    async def _give_up(self, prompt_id: str, posting: asyncio.Task[str]) -> None:
        try:
            async with asyncio.timeout(STOP_SECONDS):
                # The prompt may be queued after we looked for it, so wait for the answer.
                with contextlib.suppress(RefusedError, NotReachableError):
                    await posting
                await self.stop(prompt_id)
            log("workflow.stopped", prompt_id=prompt_id)
        except (NotReachableError, AccessError, TimeoutError) as error:
            log("workflow.not_stopped", prompt_id=prompt_id, why=str(error) or "ComfyUI does not answer")

    async def finish(self, prompt_id: str, graph: Graph, timeout: float) -> Result:
        """Wait for a prompt that was submitted earlier, by anyone, and return its results.

        Raises:
            AccessError, NotReachableError, RunFailedError, TimedOutError.
        """
        try:
            async with asyncio.timeout(timeout):
                return result_of(prompt_id, await history(self, prompt_id, Ear(), self._patience), graph)
        except TimeoutError:
            raise TimedOutError(f"prompt {prompt_id} did not end within {timeout:g} s; it was not stopped") from None

    async def download(self, output: Output, target: Path, replace: bool = True) -> None:
        """Write one output's bytes to `target`, complete or not at all.

        Raises:
            FileExistsError: something is there, and `replace` is false.
            NotReachableError: ComfyUI went away.
            RunFailedError: it does not hand the file out.
        """
        query = {"filename": output.filename, "subfolder": output.subfolder, "type": output.type}
        target.parent.mkdir(parents=True, exist_ok=True)
        # A process id is not enough: two containers that share the folder may use the same one.
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.part")
        try:
            async with self.call("GET", "/view", params=query) as response:
                if response.status != 200:
                    raise RunFailedError(f"ComfyUI answered {response.status} for {output.path}: it cannot be saved")
                with part.open("wb") as file:
                    async for piece in response.content.iter_chunked(1 << 20):
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
            if replace:
                part.rename(target)
            else:
                _rename_new(part, target)
        finally:
            part.unlink(missing_ok=True)


def _rename_new(part: Path, target: Path) -> None:
    """Give a file its name unless the name is taken, even if another process does so at the same moment."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links.
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        part.rename(target)


async def put_files(client: Client, graph: Graph, files: Mapping[tuple[str, str], Path]) -> None:
    """Upload `files` and put their names into `graph`; each file is uploaded once."""
    names: dict[Path, str] = {}
    for (node, name), path in files.items():
        if path not in names:
            names[path] = await client.upload(path)
        graph[node]["inputs"][name] = names[path]
