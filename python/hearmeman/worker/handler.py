"""Runs one job: its inputs into ComfyUI, its graph, its outputs into an answer; a job that is cancelled stops in ComfyUI."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hearmeman.errors import HearmemanError, UsageError
from hearmeman.log import log
from hearmeman.redact import redact
from hearmeman.worker import answer, inputs, request
from hearmeman.worker import bucket as buckets
from hearmeman.worker.config import Config
from hearmeman.worker.request import Attached, Bucket, Request
from hearmeman.workflows import advice, library, prepare, schema
from hearmeman.workflows.answers import Output, Progress, RefusedError, Result, RunFailedError
from hearmeman.workflows.client import Client, put_files
from hearmeman.workflows.library import Graph, Workflow
from hearmeman.workflows.prepare import Files

_NO_END = 7 * 86400.0
"""Seconds. RunPod's executionTimeout ends a job, at the latest after these; the worker holds no deadline of its own."""
_BETWEEN = 1.0
"""Seconds between two steps' progress: each is a request of its own."""

Send = Callable[[Mapping[str, Any], Mapping[str, Any]], None]
"""Sends a job's progress: (job, what is sent)."""


@dataclass
class Steps:
    """Numbers a job's progress: the SDK sends each from a thread of its own, so they arrive in any order."""

    job: Mapping[str, Any]
    send: Send
    number: int = 0
    _node: str = ""
    _sent: float = field(default=-_BETWEEN)

    def say(self, **what: Any) -> None:
        """Send one."""
        self.number += 1
        self.send(self.job, {"number": self.number, **what})

    def at(self, progress: Progress) -> None:
        """Send where ComfyUI is: each node, and its steps once a second."""
        now, is_end = time.monotonic(), progress.max is not None and progress.value == progress.max
        if progress.node == self._node and not is_end and now - self._sent < _BETWEEN:
            return
        self._node, self._sent = progress.node, now
        steps = {} if progress.max is None else {"step": progress.value, "steps": progress.max}
        self.say(state="running", node=progress.node, class_type=progress.class_type, **steps)


async def handle(job: Mapping[str, Any], config: Config, send: Send) -> dict[str, Any]:
    """Run a job and give its answer; an error is an answer too.

    Raises:
        CancelledError: the job was cancelled; ComfyUI was made to stop it.
    """
    started, name = time.monotonic(), str(job.get("id", ""))
    steps = Steps(job, send)
    try:
        asked = request.parse(job, config.input_bytes)
        log("job.started", job=name, workflow=asked.name or "its own graph")
        with tempfile.TemporaryDirectory(prefix="hearmeman-job-") as folder:
            found = await _run(name, asked, config, steps, Path(folder))
        log("job.done", job=name, seconds=time.monotonic() - started)
        return found
    except asyncio.CancelledError:
        log("job.cancelled", job=name, seconds=time.monotonic() - started)
        raise
    except HearmemanError as error:
        log("job.failed", job=name, why=str(error))
        return {"error": redact(str(error))}
    except OSError as error:
        reason = f"the worker's disk failed: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason += ": give the endpoint a larger container disk"
        log("job.failed", job=name, why=reason)
        return {"error": redact(reason)}


async def _run(job: str, asked: Request, config: Config, steps: Steps, folder: Path) -> dict[str, Any]:
    if asked.bucket is not None:  # Before the GPU works for an answer that could not be given.
        await _check_bucket(asked.bucket, config)
    graph, files, workflow = await _prepared(asked, config, steps, folder)
    # Opened for each job: a worker that waits holds no connection to ComfyUI, which a restored snapshot would find dead.
    async with Client(config.comfyui) as client:
        # All of them before ComfyUI is given the first.
        paths = [
            await _file(attached, folder / f"attached-{number}", config)
            for number, attached in enumerate(asked.attached)
        ]
        for path, attached in zip(paths, asked.attached, strict=True):
            await client.upload(path, attached.name)
        await put_files(client, graph, files)
        key = asked.api_key or config.comfy_org_key
        extra = {"api_key_comfy_org": key} if key else {}
        try:
            result = await client.run(graph, _NO_END, steps.at, extra=extra)
        except (RunFailedError, RefusedError) as error:
            raise _explained(error, workflow, graph, config) from error
        steps.say(state="collecting", files=len(result.outputs))
        saved = [
            (output, await _save(client, output, folder / f"out-{number}"))
            for number, output in enumerate(answer.wanted(result.outputs))
        ]
    return await _answer(job, result, saved, asked, config, steps)


async def _prepared(asked: Request, config: Config, steps: Steps, folder: Path) -> tuple[Graph, Files, Workflow]:
    if asked.graph is not None:
        steps.say(state="preparing")
        return asked.graph, {}, Workflow("the graph", "", folder, (), {}, {}, "", is_own=True)
    workflow = library.find(library.load(config.workflows), asked.name)
    steps.say(state="preparing", workflow=workflow.name)
    own = {}
    for number, (key, attached) in enumerate(asked.uploads.items()):
        place = folder / f"set-{number}"
        place.mkdir()
        own[key] = await _file(attached, place / Path(attached.name).name, config)
    settings = [f"{key}={value}" for key, value in (*asked.settings.items(), *own.items())]
    try:
        graph, files = prepare.prepared(workflow, settings, config.workflows, config.environ, own.values())
    except prepare.StrangeFileError as error:
        raise UsageError(
            "set takes a file by its address or as a data URI: a path on the worker is not one of the job's files"
        ) from error
    except UsageError as error:
        # As the command line says it; a job has no --set.
        raise UsageError(str(error).replace("--set ", "set ").replace(str(folder), "")) from error
    return graph, files, workflow


async def _file(attached: Attached, target: Path, config: Config) -> Path:
    if attached.content is not None:
        target.write_bytes(attached.content)
    else:
        await inputs.fetch(attached.url, target, config.input_bytes, config.input_seconds, config.private_urls)
    return target


async def _save(client: Client, output: Output, target: Path) -> Path:
    await client.download(output, target)
    return target


def _explained(error: HearmemanError, workflow: Workflow, graph: Graph, config: Config) -> HearmemanError:
    text = ""
    if isinstance(error, RunFailedError):
        text = advice.for_failure(error, workflow, graph)
    elif isinstance(error, RefusedError):
        # Without the schema ComfyUI's own words have to do.
        with contextlib.suppress(HearmemanError):
            text = advice.for_refusal(error, schema.read(config.workflows / schema.FILE), ())
    return HearmemanError(f"{error}. {text[0].upper()}{text[1:]}" if text else str(error))


async def _answer(
    job: str, result: Result, saved: answer.Saved, asked: Request, config: Config, steps: Steps
) -> dict[str, Any]:
    most = answer.limit(job)
    first = asked.bucket or config.always
    if first is None:
        there = answer.least(saved)
        if there <= most:
            found = answer.inline(result, saved)
            there = answer.size(found)
            if there <= most:
                return found
        if config.overflow is None:
            raise answer.too_large(most, there)
        first = config.overflow
    steps.say(state="uploading", files=len(saved))
    public = config.public if first is config.overflow else ""
    allow_private = config.private_urls or first is not asked.bucket
    urls = []
    for number, (output, path) in enumerate(saved):
        # The number keeps apart files of one name in two folders.
        key = "/".join(filter(None, (config.prefix, job, f"{number}-{output.filename}")))
        urls.append(await asyncio.to_thread(buckets.upload, first, key, path, public, allow_private))
    found = answer.linked(result, saved, urls)
    if (there := answer.size(found)) > most:
        raise answer.too_long(most, there)
    return found


async def _check_bucket(bucket: Bucket, config: Config) -> None:
    """Refuse a job's bucket whose host is unknown, or in a private network; the endpoint's own may be in one."""
    inputs.check(bucket.endpoint, config.private_urls)
    await inputs.find_bucket(urlsplit(bucket.endpoint).hostname or "", config.private_urls)
