"""`hearmeman sync`: upload outputs to the bucket as they appear, until told to stop."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from hearmeman.errors import HearmemanError


class SyncError(HearmemanError):
    """The sync cannot run here."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman sync`."""


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Sync until SIGTERM; 3 when something was left."""
    from hearmeman.log import log
    from hearmeman.settings import load
    from hearmeman.sync.bucket import Bucket
    from hearmeman.sync.daemon import UPLOADS_AT_ONCE, Daemon
    from hearmeman.sync.journal import Journal
    from hearmeman.sync.report import Report
    from hearmeman.sync.tree import Names

    settings = load(environ)
    bucket = Bucket(settings, UPLOADS_AT_ONCE)
    root, state = Path(settings.output_path), Path(settings.state_path)
    try:
        root.mkdir(parents=True, exist_ok=True)
        state.mkdir(parents=True, exist_ok=True)
        journal = Journal(state / "sync.db")
    except OSError as error:
        raise SyncError(f"{error.filename} cannot be used: {error.strerror}: nothing was uploaded") from error
    report = Report(state / "sync.json", bucket=bucket.name, endpoint=bucket.endpoint, folder=str(root))
    names = Names(EXTENSIONS)
    daemon = Daemon(root.resolve(), names, settings.r2_prefix, bucket, journal, report, settings.sync_drain_seconds)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: daemon.stop())
    log("sync.started", folder=root, bucket=bucket.name, endpoint=bucket.endpoint, journaled=len(daemon.backlog.done))
    everything = daemon.run()
    journal.close()
    # An upload that is still under way would hold the interpreter's own end up.
    sys.stdout.flush()
    os._exit(0 if everything else 3)


EXTENSIONS = frozenset({"png", "jpg", "jpeg", "webp", "mp4", "webm", "gif", "wav", "mp3", "flac"})
