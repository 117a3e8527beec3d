"""`hearmeman workflows schema`: writes node-schema.json from a running ComfyUI, and says what changed."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearmeman.errors import HearmemanError
from hearmeman.state_file import write_named
from hearmeman.workflows import record, run_command, schema


class UnwritableError(HearmemanError):
    """The file cannot be written."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--url", default="", help="ComfyUI's address (default: the ComfyUI of this machine)")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"where to write (DIR/{schema.FILE})")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something changed")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Ask, compare and write; returns the exit code.

    Raises:
        HearmemanError: one of its leaves, with what happened and what to do.
    """
    path = Path(args.dir) / schema.FILE
    schema.read(path)
    before = json.loads(path.read_text(encoding="utf-8"))
    url, token = run_command.address(args.url, environ)
    info, models, folders, version = asyncio.run(_ask(url, token))
    after = record.recorded(info, models, folders, version, before)
    found = record.changes(before["nodes"], after["nodes"])
    if args.json:
        print(json.dumps({"before": before["comfyui_version"], "now": version, "changes": found}, indent=2))
    else:
        print("\n".join([*found, f"{len(found)} of {len(after['nodes'])} classes changed; ComfyUI is {version}"]))
    if args.check:
        return 1 if found else 0
    target = args.out or path
    try:
        write_named(target, record.rendered(after))
    except OSError as error:
        raise UnwritableError(f"{target} cannot be written: {error.strerror}: give another place with --out") from error
    return 0


async def _ask(url: str, token: str) -> tuple[dict[str, Any], dict[str, list[str]], list[dict[str, Any]], str]:
    from hearmeman.workflows.client import Client

    async with Client(url, token) as client:
        version = str((await client.get("/system_stats"))["system"]["comfyui_version"])
        folders = await client.get("/models")
        models = {folder: await client.get(f"/models/{folder}") for folder in folders}
        return await client.object_info(), models, await client.get("/experiment/models"), version
