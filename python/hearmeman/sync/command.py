"""`hearmeman sync`: upload outputs to the bucket as they appear, until told to stop."""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from hearmeman.errors import HearmemanError


class SyncError(HearmemanError):
    """The sync cannot run here."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman sync`."""
    parser.epilog = "Without either word it uploads until SIGTERM or Ctrl-C, and ends with 3 if something was left."
    what = parser.add_subparsers(dest="what", metavar="[status | cost]")
    status = what.add_parser("status", help="backlog, last upload, last error", allow_abbrev=False)
    status.add_argument("--json", action="store_true", help="print JSON")
    cost = what.add_parser("cost", help="what is stored and sent, and what it costs", allow_abbrev=False)
    cost.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Sync until SIGTERM; 3 when something was left."""
    from hearmeman.settings import load

    settings = load(environ)
    if args.what == "status":
        from hearmeman.sync import status

        return status.show(settings, args.json)
    if args.what == "cost":
        from hearmeman.sync import cost

        return cost.show(settings, args.json)
    asked_to_stop = _Stop()
    from hearmeman.log import log
    from hearmeman.sync.bucket import Bucket
    from hearmeman.sync.daemon import Daemon
    from hearmeman.sync.journal import Journal, journal_file
    from hearmeman.sync.prompts import Prompts
    from hearmeman.sync.report import Report, lock
    from hearmeman.sync.tree import names
    from hearmeman.sync.upload import PARTS_AT_ONCE, Uploader

    wanted = names(settings.sync_extensions)
    bucket = Bucket(settings, settings.sync_uploads + PARTS_AT_ONCE)
    root, state = Path(settings.output_path), Path(settings.state_path)
    try:
        root.mkdir(parents=True, exist_ok=True)
        state.mkdir(parents=True, exist_ok=True)
        held = lock(state / "sync.lock")
        if held is None:
            pid = (state / "sync.lock").read_text(encoding="utf-8").strip()
            raise SyncError(f"a sync runs already (pid {pid}): see `hearmeman sync status`; nothing was started")
        journal = Journal(journal_file(state, bucket.endpoint, bucket.name))
    except OSError as error:
        where, why = error.filename or state, error.strerror or error
        raise SyncError(
            f"{where} cannot be used: {why}: nothing was uploaded; free some space or set STATE_DIR"
        ) from error
    except sqlite3.Error as error:
        raise SyncError(
            f"the journal in {state} cannot be used: {error}: nothing was uploaded; free some space"
        ) from error
    report = Report(state / "sync.json", bucket=bucket.name, endpoint=bucket.endpoint, folder=str(root))
    prompts = Prompts(environ.get("COMFYUI_URL") or f"http://127.0.0.1:{settings.comfyui_port}")
    uploader = Uploader(bucket, settings.r2_prefix, root.resolve(), journal, prompts.of)
    daemon = Daemon(
        uploader, wanted, journal, report, settings.sync_drain_seconds, settings.sync_uploads, settings.sync_watch
    )
    asked_to_stop.tell(daemon.stop)
    log("sync.started", folder=root, bucket=bucket.name, endpoint=bucket.endpoint, journaled=len(daemon.backlog.done))
    everything = daemon.run()
    journal.close()
    # An upload that is still under way would hold the interpreter's own end up.
    sys.stdout.flush()
    os._exit(0 if everything else 3)


class _Stop:
    """SIGTERM and Ctrl-C, heard from the first moment on, told to the daemon once there is one."""

    def __init__(self) -> None:
        self.heard = False
        self.stop: Callable[[], None] = lambda: None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: object) -> None:
        self.heard = True
        self.stop()

    def tell(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        if self.heard:
            stop()
