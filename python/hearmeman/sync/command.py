"""`hearmeman sync`: upload outputs to the bucket as they appear, until it is stopped, and look at what is there."""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hearmeman.errors import HearmemanError

if TYPE_CHECKING:
    from hearmeman.settings import Settings
    from hearmeman.sync.bucket import Bucket
    from hearmeman.sync.free import Sweeper
    from hearmeman.sync.prompts import Prompts
    from hearmeman.sync.provenance import Provenance
    from hearmeman.sync.report import Report
    from hearmeman.workspace.watch import Watch


class SyncError(HearmemanError):
    """The sync cannot run here."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman sync`."""
    parser.epilog = "Without a subcommand it uploads until SIGTERM or Ctrl-C, and exits with 3 if something was left."
    what = parser.add_subparsers(dest="what", metavar="[ACTION]")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        found = what.add_parser(name, help=help, allow_abbrev=False)
        found.add_argument("--json", action="store_true", help="print JSON")
        return found

    command("status", "what is waiting, what was sent last, which files fail; exit 0 when all is well")
    check = command("check", "compare the output folder with the bucket by size and hash; exit 1 on a difference")
    check.add_argument("--size-only", action="store_true", help="read no file: compare sizes alone")
    parts = command("parts", "half-sent large files, which the bucket keeps and charges for")
    parts.add_argument("--all", action="store_true", help="in the whole bucket, not only below R2_PREFIX")
    parts.add_argument("--abort", action="store_true", help="abort those that this pod is not resuming")
    parts.add_argument(
        "--older-than",
        type=_amount,
        default=24.0,
        metavar="HOURS",
        help="abort only those at least this old; default 24",
    )
    free = command("free", "remove local outputs beyond SYNC_KEEP_LOCAL_DAYS and SYNC_KEEP_LOCAL_GB")
    free.add_argument("--dry-run", action="store_true", help="only list them")
    cost = command("cost", "what is stored and sent, and what it costs; or an estimate")
    cost.add_argument("--stored-gb", type=_amount, metavar="N", help="estimate: gigabytes stored the whole month")
    cost.add_argument("--uploads", type=_amount, metavar="N", help="estimate: files uploaded a month")


def _amount(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more")
    return value


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Carry one word out, or sync until SIGTERM; then 3 when something was left."""
    if args.what == "cost" and (args.stored_gb is not None or args.uploads is not None):
        from hearmeman.sync import cost

        return cost.show_estimate(args.stored_gb or 0.0, args.uploads or 0.0, args.json)
    from hearmeman.settings import load

    settings = load(environ)
    if args.what == "status":
        from hearmeman.sync import status

        return status.show(settings, args.json)
    if args.what == "check":
        from hearmeman.sync import check

        return check.show(settings, args.size_only, args.json)
    if args.what == "parts":
        from hearmeman.sync import parts

        return parts.show(settings, args.all, args.abort, args.older_than, args.json)
    if args.what == "free":
        from hearmeman.sync import free

        return free.show(settings, args.dry_run, args.json)
    if args.what == "cost":
        from hearmeman.sync import cost

        return cost.show(settings, args.json)
    return _upload(settings, environ)


def _upload(settings: Settings, environ: Mapping[str, str]) -> int:
    asked_to_stop = _Stop()
    from hearmeman.log import log
    from hearmeman.sync.bucket import Bucket
    from hearmeman.sync.daemon import Daemon
    from hearmeman.sync.journal import journal_file, open_journal
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
            raise SyncError(f"a sync is already running (pid {pid}): see `hearmeman sync status`; nothing was started")
        journal = open_journal(journal_file(state, bucket.endpoint, bucket.name))
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
    recorder = _recorder(settings, prompts)
    uploader = Uploader(bucket, settings.r2_prefix, root.resolve(), journal, prompts.of, recorder)
    daemon = Daemon(
        uploader, wanted, journal, report, settings.sync_drain_seconds, settings.sync_uploads, settings.sync_watch
    )
    beside = list(_beside(settings, bucket, report))
    asked_to_stop.pass_on(daemon.stop, *(one.stop for one in beside))
    log("sync.started", folder=root, bucket=bucket.name, endpoint=bucket.endpoint, journaled=len(daemon.backlog.done))
    everything = daemon.run()
    journal.close()
    until = asked_to_stop.at + settings.sync_drain_seconds
    for one in beside:
        everything &= one.end(until)
    # An upload that is still under way would hold the interpreter's own end up.
    sys.stdout.flush()
    os._exit(0 if everything else 3)


def _recorder(settings: Settings, prompts: Prompts) -> Callable[[str], Provenance | None]:
    from hearmeman.image import IMAGE_FILE
    from hearmeman.models.store import Store
    from hearmeman.state_file import read_json
    from hearmeman.sync.provenance import Recorder, image_facts

    if not settings.sync_provenance:
        return lambda prompt_id: None
    models = Path(settings.models_path)
    image = image_facts(read_json(IMAGE_FILE), settings.image_digest)
    inputs = Path(settings.comfyui_dir) / "input"
    return Recorder(prompts.graph_of, Store(models).read_records, models, inputs, image).of


def _beside(settings: Settings, bucket: Bucket, report: Report) -> Iterator[Watch | Sweeper]:
    """Start what works beside the daemon, each in a thread of its own."""
    if settings.sync_keep_local_days or settings.sync_keep_local_gb:
        from hearmeman.sync.free import Sweep, Sweeper

        sweeper = Sweeper(Sweep.of(settings, bucket), report.note)
        sweeper.start()
        yield sweeper
    if settings.sync_workspace:
        from hearmeman.workspace.space import Space
        from hearmeman.workspace.watch import Watch

        watch = Watch(Space.of(settings, bucket), report.note)
        watch.start()
        yield watch


class _Stop:
    """SIGTERM and Ctrl-C, noted from the first moment on and passed on to what has to stop once it exists."""

    def __init__(self) -> None:
        self.came, self.at = False, 0.0
        self.stops: tuple[Callable[[], None], ...] = ()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.came, self.at = True, time.monotonic()
        for stop in self.stops:
            stop()

    def pass_on(self, *stops: Callable[[], None]) -> None:
        self.stops = stops
        if self.came:
            for stop in stops:
                stop()
