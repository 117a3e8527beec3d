"""One run, from uploading its files to saving its outputs. Imports aiohttp: load it late."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from hearmeman.workflows.answers import Output, Result, targets
from hearmeman.workflows.client import Client, put_files
from hearmeman.workflows.library import Graph, Place
from hearmeman.workflows.shown import Shown


async def run(
    client: Client, graph: Graph, files: Mapping[Place, Path], timeout: float, out: Path | None, shown: Shown
) -> Result:
    """Upload `files`, run `graph`, and with `out` download its outputs into that folder; nothing there is replaced.

    Raises:
        HearmemanError: one of `answers`.
        OSError: `out` cannot be written.
    """
    started = time.monotonic()
    await put_files(client, graph, files)
    result = await client.run(graph, timeout, shown.progress, shown.submitted)
    seconds = time.monotonic() - started
    for output in result.outputs:
        shown.output(output, None if out is None else await save(client, output, out, result.prompt_id))
    shown.done(result, seconds)
    return result


async def save(client: Client, output: Output, out: Path, prompt_id: str) -> Path:
    """Download one output into the folder `out`; returns its path.

    Raises:
        RunFailedError: its reported path leads out of `out`, or ComfyUI does not hand it out.
        OSError: `out` cannot be written.
    """
    for path in targets(out, output, prompt_id):
        if not path.exists():
            try:
                await client.download(output, path, replace=False)
                return path
            except FileExistsError:
                continue
    raise AssertionError("there is always another name")
