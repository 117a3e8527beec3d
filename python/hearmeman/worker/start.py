"""What is done before the first job: ComfyUI is waited for, its nodes are looked through, a workflow warms it up."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable

from hearmeman.errors import HearmemanError
from hearmeman.log import log
from hearmeman.worker.config import Config
from hearmeman.workflows import library, prepare
from hearmeman.workflows.answers import NotReachableError
from hearmeman.workflows.client import Client

_LOOK = 0.05
_SAY = 30.0
_WARMUP = 1800.0


class NotFitError(HearmemanError):
    """This worker must take no job."""


async def warm_up(config: Config, mark: Callable[[str], None]) -> None:
    """Wait for ComfyUI for as long as it takes, and load what the first job would wait for.

    Raises:
        NotFitError: the warm-up did not run.
    """
    started = said = time.monotonic()
    async with Client(config.comfyui) as client:
        while True:
            try:
                # Its first answer makes it look through all its nodes and model folders.
                classes = await client.object_info()
                break
            except NotReachableError as error:
                # RunPod, and not a limit of ours, gives up on a worker that does not start.
                if time.monotonic() - said > _SAY:
                    said = time.monotonic()
                    log("worker.waiting", seconds=said - started, why=str(error))
                await asyncio.sleep(_LOOK)
        log("worker.connected", node_classes=len(classes))
        mark("comfyui")
        if config.warmup:
            try:
                workflow = library.find(library.load(config.workflows), config.warmup)
                graph, files = prepare.prepared(workflow, [], config.workflows, config.environ)
                if files:
                    raise NotFitError(f"{config.warmup} needs a file")
                await client.run(graph, _WARMUP, lambda progress: None)
            except HearmemanError as error:
                raise NotFitError(
                    f"WORKER_WARMUP={config.warmup} did not run: {error}. Name a workflow that runs here without a file, "
                    "or unset it"
                ) from error
            mark("warm-up")


def check_models(python: str, config: Config) -> None:
    """Ask whether every enabled model is on the volume, whole and verified when it was fetched; reads none of them.

    Raises:
        NotFitError: names what is missing.
    """
    command = [python, "-P", "-m", "hearmeman", "models", "plan", "--json"]
    asked = subprocess.run(command, env=dict(config.environ), capture_output=True, text=True, timeout=120, check=False)
    try:
        plan = json.loads(asked.stdout)
        missing = [step["to"] for step in plan["steps"] if step["action"] in ("fetch", "list")]
    except (ValueError, KeyError, TypeError):
        raise NotFitError(f"the models could not be checked: {asked.stderr[-500:]}") from None
    if missing:
        raise NotFitError(
            f"{len(missing)} model files are missing or were not verified, such as {missing[0]}: fill the volume first "
            "(docs/serverless.md), or see in this worker's log why `hearmeman models fetch` failed"
        )
