"""`hearmeman owners`: gives ComfyUI what root or an older pod left in its folders (boot runs it, and so can a person)."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from hearmeman.errors import HearmemanError, PartlyDoneError
from hearmeman.image import RUN_DIR
from hearmeman.log import log


class OwnersError(HearmemanError):
    """Nothing can be given away here."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman owners`."""
    parser.add_argument("folder", nargs="*", help="folders (default: all of ComfyUI's)")
    parser.add_argument("--only-folders", action="store_true", help="leave the files in them as they are")
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="boot's run folder")
    parser.add_argument("--then", nargs=argparse.REMAINDER, help="become this command afterwards")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Repair the folders, then become the command if there is one.

    Raises:
        OwnersError: this is not root, or no pod whose processes have users of their own.
        PartlyDoneError: some could not be changed, and no command is to follow.
    """
    from hearmeman import users
    from hearmeman.boot import owners

    if not users.is_separate(args.run_dir):
        raise OwnersError(
            "no pod runs here whose processes have users of their own: there is nobody to give folders to"
        )
    if os.geteuid() != 0:
        raise OwnersError("only root can give folders to ComfyUI: run this as root of the pod")
    if not args.then:
        with contextlib.suppress(OSError):
            os.nice(10)
    changed = failed = 0
    began = time.monotonic()
    for folder in args.folder or _all(environ):
        try:
            done = owners.repair(folder, args.only_folders)
        except OSError as error:
            log("owners.failed", folder=folder, why=error.strerror)
            done = (0, 1)
        changed, failed = changed + done[0], failed + done[1]
    if changed or failed or not args.then:
        log("owners.done", changed=changed, failed=failed, seconds=time.monotonic() - began)
    if args.then:
        os.execvpe(args.then[0], args.then, dict(environ))
    if failed:
        raise PartlyDoneError(f"{failed} files or folders could not be given to ComfyUI: the filesystem refused it")
    return 0


def _all(environ: Mapping[str, str]) -> tuple[str, ...]:
    from hearmeman.boot.comfyui import comfyui_folders
    from hearmeman.settings import load

    return comfyui_folders(load(environ))
