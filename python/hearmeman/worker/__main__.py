"""The worker's own process, in the environment with RunPod's SDK: warms up, then takes jobs until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hearmeman import redact
from hearmeman.errors import HearmemanError
from hearmeman.image import RUN_DIR, WORKFLOWS_DIR
from hearmeman.state_file import read_json
from hearmeman.worker import config as configs
from hearmeman.worker.phases import Phases


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run it; returns when it is stopped. Unknown arguments in `argv` are the SDK's, such as --rp_serve_api."""
    with redact.guarded_streams():
        redact.learn(environ)
        try:
            return _run(argv, environ)
        except HearmemanError as error:
            print(f"hearmeman: {error}", file=sys.stderr, flush=True)
            return error.exit_code


def _run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    parser = argparse.ArgumentParser(prog="hearmeman.worker", allow_abbrev=False, description=__doc__)
    parser.add_argument("--workflows", type=Path, default=WORKFLOWS_DIR, help="folder with the image's workflows")
    parser.add_argument("--report", type=Path, help="file for the timings of startup")
    parser.add_argument("--python", default="", help="the interpreter that checks the models")
    args, theirs = parser.parse_known_args(argv)
    config = configs.read(environ, args.workflows)
    begun = read_json(RUN_DIR / "boot.json").get("started_boottime")
    phases = Phases(begun if isinstance(begun, float) else time.clock_gettime(time.CLOCK_BOOTTIME), args.report)
    # By default the SDK prints every complete answer.
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")
    import runpod.serverless as sdk

    from hearmeman.worker import handler, start

    phases.mark("sdk")

    def models_are_verified() -> None:
        start.check_models(args.python, config)
        phases.mark("models")

    async def comfyui_is_warm() -> None:
        await start.warm_up(config, phases.mark)
        phases.mark("ready")

    # Before jobs are taken, since RunPod may keep the warm process and restore it. The SDK does both in this order, and
    # tells RunPod by name and sentence which failed.
    if args.python:
        sdk.register_fitness_check(models_are_verified)
    if "--rp_serve_api" in theirs:  # It asks no checks then.
        asyncio.run(comfyui_is_warm())
    else:
        sdk.register_fitness_check(comfyui_is_warm)

    async def handle(job: dict[str, Any]) -> dict[str, Any]:
        phases.mark("first job taken")
        try:
            return await handler.handle(job, config, lambda job, what: sdk.progress_update(dict(job), dict(what)))
        finally:
            phases.mark("first job done")

    sys.argv = [sys.argv[0], *theirs]
    sdk.start({"handler": handle})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
