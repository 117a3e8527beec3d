"""`hearmeman door`: the status page and the gate's doorman (used by boot)."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path

from hearmeman.errors import HearmemanError
from hearmeman.image import RUN_DIR


class DoorError(HearmemanError):
    """There is no pod to answer for."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman door`."""
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="boot's run folder")
    parser.add_argument("--held", action="store_true", help="show why the pod could not start")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Serve until told to stop.

    Raises:
        DoorError: no pod was booted here.
    """
    from hearmeman.door import held, server
    from hearmeman.door.auth import Lock
    from hearmeman.state_file import read_json

    if args.held:
        _until_stopped(held.serve(args.run_dir))
    boot = read_json(args.run_dir / "boot.json")
    if not boot:
        raise DoorError(f"{args.run_dir}/boot.json is missing: `hearmeman boot` starts this")
    token = environ.get("ACCESS_TOKEN", "")
    origins = tuple(str(origin) for origin in boot.get("origins", []))
    listens = [(str(host), int(port)) for host, port in boot.get("status_listens", [])]

    door = server.Door(args.run_dir, boot, Lock(token, origins) if token else None, environ.get("NOTIFY_URL", ""))
    _until_stopped(server.serve(door, args.run_dir / "gate" / "door.sock", listens))
    return 0


def _until_stopped(server: Coroutine[None, None, None]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        serving = asyncio.create_task(server)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, serving.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        # A question to ComfyUI that is still under way in a thread would hold the end up.
        sys.stderr.flush()
        os._exit(0)

    asyncio.run(main())
