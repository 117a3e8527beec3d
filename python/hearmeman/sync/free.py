"""Removes outputs from a volume that fills, once their objects are proven to hold the same: SYNC_KEEP_LOCAL_*."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hearmeman.errors import HearmemanError
from hearmeman.folder import Folder
from hearmeman.log import log
from hearmeman.settings import Settings
from hearmeman.sync.bucket import Bucket
from hearmeman.sync.explain import explained
from hearmeman.sync.journal import Journal, Record, journal_file
from hearmeman.sync.proof import difference, digests
from hearmeman.sync.tree import Names, Seen, look, names, outputs, seen
from hearmeman.terminal import size

SWEEP_SECONDS = 60.0
"""Between two looks at the folder."""
SWEEP_SHARE = 0.01
"""The part of the time that looking may take."""
YOUNGEST_SECONDS = 600.0
"""No output that was changed within so long is removed, however full the volume is: somebody is looking at it."""


class NothingKeptError(HearmemanError):
    """Nothing says which outputs may go."""


@dataclass(frozen=True)
class Local:
    """An output on the volume."""

    path: str
    """Relative to the output folder."""
    seen: Seen
    """What it looks like."""
    record: Record | None
    """What the journal says of exactly this content; None if it is not known to be in the bucket."""


def due(files: list[Local], now: float, days: float, gigabytes: float) -> list[Local]:
    """Choose what may go, the oldest first: what is older than `days`, and what exceeds `gigabytes`; 0 is no limit. Pure.

    Only what is in the bucket may go, but all that is there counts.
    """
    room = gigabytes * 1e9 if gigabytes else float("inf")
    total = sum(one.seen.size for one in files)
    chosen = []
    for one in sorted(files, key=lambda one: (one.seen.mtime_ns, one.path)):
        age = now - one.seen.mtime_ns / 1e9
        too_old = bool(days) and age > days * 86400
        if one.record is None or age < YOUNGEST_SECONDS or not (too_old or total > room):
            continue
        chosen.append(one)
        total -= one.seen.size
    return chosen


@dataclass(frozen=True)
class Sweep:
    """What looking and removing have in common."""

    bucket: Bucket
    """Where the objects lie."""
    root: Path
    """The output folder, without links."""
    names: Names
    """Which files are outputs."""
    journal: Path
    """The sync's journal."""
    days: float
    """SYNC_KEEP_LOCAL_DAYS."""
    gigabytes: float
    """SYNC_KEEP_LOCAL_GB."""

    @classmethod
    def of(cls, settings: Settings, bucket: Bucket | None = None) -> Sweep:
        """Make it from the settings, over a bucket that is used already or one of its own.

        Raises:
            SettingsError: the bucket's address or a key is not set.
        """
        return cls(
            bucket or Bucket(settings, 2),
            Path(settings.output_path).resolve(),
            names(settings.sync_extensions),
            journal_file(Path(settings.state_path), settings.r2_endpoint, settings.r2_bucket),
            settings.sync_keep_local_days,
            settings.sync_keep_local_gb,
        )

    def choose(self, now: float) -> list[Local]:
        """Look at the folder and choose what may go."""
        found = []
        with contextlib.closing(Journal(self.journal, read_only=True)) as journal:
            done = journal.done()
            for path in outputs(self.root, self.names):
                status = look(self.root, path)
                if status is not None:
                    same = done.get(path) == (status.size, status.mtime_ns)
                    found.append(Local(path, status, journal.record_of(path) if same else None))
        return due(found, now, self.days, self.gigabytes)

    def remove(self, one: Local) -> str:
        """Remove one output whose object is proven to hold the same; the answer is why not, or nothing.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: the bucket cannot be asked.
        """
        assert one.record is not None
        try:
            with Folder(self.root) as folder:
                descriptor = folder.open(one.path)
                try:
                    local = digests(descriptor, one.seen.size)
                    if seen(os.fstat(descriptor)) != one.seen or local.size != one.seen.size:
                        return "it changed a moment ago"
                    stored = self.bucket.head(one.record.key, strict=True)
                    if stored is None:
                        return f"{one.record.key} is no longer in the bucket"
                    if why := difference(stored, local):
                        return why
                    return _unlink(folder, one)
                finally:
                    os.close(descriptor)
        except OSError as error:
            return error.strerror or str(error)


def _unlink(folder: Folder, one: Local) -> str:
    *folders, name = one.path.split("/")
    with folder.inside(folders) as parent:
        # Looked at once more through the same folder, just before: what was put there since is another file.
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or seen(status) != one.seen:
            return "it changed a moment ago"
        os.unlink(name, dir_fd=parent)
    return ""


class Sweeper(threading.Thread):
    """A thread that removes what may go, beside the sync, until it is asked to stop."""

    def __init__(self, sweep: Sweep, note: Callable[..., None], seconds: float = SWEEP_SECONDS) -> None:
        """Take what it does; `note` is called with facts for the sync's state file."""
        super().__init__(name="free", daemon=True)
        self.sweep, self.note, self.seconds = sweep, note, seconds
        self.asked_to_stop = threading.Event()
        self._said: set[tuple[str, str]] = set()
        self._files = self._bytes = 0

    def stop(self) -> None:
        """Ask it to end; can be called from a signal handler."""
        self.asked_to_stop.set()

    def end(self, until: float) -> bool:
        """Wait for nothing: what is not removed now is removed by the next start."""
        return True

    def run(self) -> None:
        """Look and remove."""
        wait = self.seconds
        while not self.asked_to_stop.wait(wait):
            began = time.monotonic()
            try:
                with explained(self.sweep.bucket):
                    chosen = self.sweep.choose(time.time())
                    wait = max(self.seconds, (time.monotonic() - began) / SWEEP_SHARE)
                    for one in chosen:
                        if self.asked_to_stop.is_set():
                            return
                        self._remove(one)
            except (HearmemanError, sqlite3.Error) as error:
                self._say("sync.free_failed", str(error), why=error, means="no output is removed until that works")

    def _remove(self, one: Local) -> None:
        assert one.record is not None
        if why := self.sweep.remove(one):
            self._say("sync.kept_locally", f"{one.path} {why}", file=one.path, why=why)
            return
        self._files, self._bytes = self._files + 1, self._bytes + one.seen.size
        self.note(removed_files=self._files, removed_bytes=self._bytes)
        log("sync.removed_locally", file=one.path, bytes=one.seen.size, key=one.record.key)

    def _say(self, event: str, of: str, **fields: object) -> None:
        if (event, of) not in self._said:
            self._said.add((event, of))
            log(event, **fields)


def show(settings: Settings, dry_run: bool, as_json: bool) -> int:
    """Remove what may go, or show it; 1 if something could not be removed.

    Raises:
        NothingKeptError: neither variable is set, or no sync has run here.
        BucketError: the bucket cannot be asked.
    """
    sweep = Sweep.of(settings)
    if not (sweep.days or sweep.gigabytes):
        raise NothingKeptError("set SYNC_KEEP_LOCAL_DAYS or SYNC_KEEP_LOCAL_GB: without either, all outputs are kept")
    if not sweep.journal.exists():
        raise NothingKeptError("no sync has run here with this bucket: nothing is known to be in it")
    rows: list[dict[str, object]] = []
    with explained(sweep.bucket):
        for one in sweep.choose(time.time()):
            why = "" if dry_run else sweep.remove(one)
            key = one.record.key if one.record else ""
            rows.append({"file": one.path, "bytes": one.seen.size, "key": key, "why": why})
            if not as_json:
                words = f"kept: {why}" if why else "would be removed" if dry_run else "removed"
                print(f"{one.path}, {size(one.seen.size)}: {words}")
    if as_json:
        print(json.dumps({"dry_run": dry_run, "files": rows}, indent=2))
    elif not rows:
        print("nothing can be removed")
    return 1 if any(row["why"] for row in rows) else 0
