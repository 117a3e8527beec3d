"""The sync's loop: look at the tree, send what is ready, note what is done, until told to stop."""

from __future__ import annotations

import queue
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hearmeman.log import log
from hearmeman.sync.backlog import Backlog
from hearmeman.sync.bucket import Bucket
from hearmeman.sync.failures import Failure, FileChangedError, classify
from hearmeman.sync.hints import Hints
from hearmeman.sync.journal import Journal, Record
from hearmeman.sync.patience import Patience, pause_after
from hearmeman.sync.report import Report
from hearmeman.sync.tree import Names, Seen, look, open_for_writing, scan
from hearmeman.sync.upload import Sent, upload

UPLOADS_AT_ONCE = 8
SHORTEST_SCAN_PAUSE = 5.0
SCAN_SHARE = 0.005
"""The part of the time that looking through the whole tree may take."""


@dataclass(frozen=True)
class _Result:
    path: str
    seen: Seen
    outcome: Sent | BaseException
    seconds: float


class Daemon:
    """Keeps one folder's outputs in one bucket."""

    def __init__(
        self, root: Path, names: Names, prefix: str, bucket: Bucket, journal: Journal, report: Report, drain: float
    ) -> None:
        """Take what it works with; `drain` is the seconds it may use after it is told to stop."""
        self.root, self.names, self.prefix = root, names, prefix
        self.bucket, self.journal, self.report, self.drain = bucket, journal, report, drain
        self.backlog = Backlog(journal.done())
        self.patience = Patience()
        self.events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.results: list[_Result] = []
        self.hinted: set[str] = set()
        self.workers = ThreadPoolExecutor(UPLOADS_AT_ONCE, thread_name_prefix="upload")
        self.busy = 0
        self.scan_at = 0.0
        self.stop_at: float | None = None
        self.uploaded_files = self.uploaded_bytes = 0
        self.links: set[str] = set()
        self.said: set[str] = set()

    def stop(self) -> None:
        """Tell it to send what is left and end; can be called from a signal handler."""
        self.events.put(self._stop)

    def run(self) -> bool:
        """Work until told to stop; True if nothing was left."""
        hints = Hints(self.root, lambda paths: self.events.put(lambda: self.hinted.update(paths)))
        hints.start()
        now = time.monotonic()
        while not self._finished(now):
            self._wait(now)
            now = time.monotonic()
            self._take_results(now)
            self._look_around(now)
            self._start_uploads(now)
            self._report(now)
        hints.stop.set()
        self._say_left()
        return not self.backlog.left() and not self.journal.unwritten

    def _stop(self) -> None:
        if self.stop_at is None:
            self.stop_at = time.monotonic() + self.drain
            self.scan_at = 0.0
            self.patience.until = 0.0
            log("sync.stopping", left=len(self.backlog.left()), within=self.drain)

    def _finished(self, now: float) -> bool:
        if self.stop_at is None:
            return False
        nothing_left = not self.busy and not self.backlog.left() and self.scan_at > 0
        return nothing_left or now >= self.stop_at

    def _wait(self, now: float) -> None:
        """Wait until something happens or is due; several things at once are taken together."""
        due = [self.scan_at]
        slots = self.patience.slots(UPLOADS_AT_ONCE, now) - self.busy
        if slots > 0 and (look_at := self.backlog.next_look()) is not None:
            due.append(look_at)
        if self.patience.failure is not None and not self.busy:
            due.append(self.patience.until)
        if self.stop_at is not None:
            due.append(self.stop_at)
        try:
            self.events.get(timeout=max(0.0, min(due) - now))()
            while True:
                self.events.get_nowait()()
        except queue.Empty:
            pass

    def _look_around(self, now: float) -> None:
        hinted, self.hinted = self.hinted, set()
        if now >= self.scan_at:
            began = time.monotonic()
            self._scan("")
            for path in [p for p, entry in self.backlog.waiting.items() if not entry.busy]:
                self.backlog.observe(path, look(self.root, path), now)
            took = time.monotonic() - began
            self.scan_at = time.monotonic() + max(SHORTEST_SCAN_PAUSE, took / SCAN_SHARE)
            return
        for absolute in hinted:
            try:
                relative = str(Path(absolute).relative_to(self.root))
            except ValueError:
                continue
            if (self.root / relative).is_dir() and not (self.root / relative).is_symlink():
                self._scan("" if relative == "." else relative)
            elif self.names.path(relative):
                seen = look(self.root, relative)
                self.backlog.observe(relative, seen, now)
                if seen is None:
                    # Gone, or a name that is not UTF-8, which the watcher cannot tell.
                    self._scan(relative.rpartition("/")[0])

    def _scan(self, below: str) -> None:
        try:
            for path, seen in scan(self.root, self.names, below, self._link):
                self.backlog.observe(path, seen, time.monotonic())
            self.said.discard("unreadable")
        except OSError as error:
            self._say_once("unreadable", folder=error.filename, why=error.strerror)

    def _start_uploads(self, now: float) -> None:
        slots = self.patience.slots(UPLOADS_AT_ONCE, now) - self.busy
        for path in self.backlog.to_look_at(now) if slots > 0 else []:
            self.backlog.observe(path, look(self.root, path), now)
            if path not in self.backlog.waiting:
                continue
            if self.backlog.ready(path, open_for_writing(self.root / path), now):
                self.busy += 1
                self.workers.submit(self._upload, path, self.backlog.started(path))
                slots -= 1
                if slots == 0:
                    break

    def _upload(self, path: str, seen: Seen) -> None:
        began = time.monotonic()
        outcome: Sent | BaseException
        try:
            outcome = upload(self.bucket, self.prefix, self.root, path, seen)
        except BaseException as error:
            outcome = error
        result = _Result(path, seen, outcome, time.monotonic() - began)
        self.events.put(lambda: self.results.append(result))

    def _take_results(self, now: float) -> None:
        results, self.results = self.results, []
        records = []
        for result in results:
            self.busy -= 1
            if isinstance(result.outcome, Sent):
                records.append(Record(result.path, result.seen.mtime_ns, result.outcome, time.time()))
                self._sent(result, result.outcome, now)
            else:
                self._failed(result, result.outcome, now)
        if records or self.journal.unwritten:
            try:
                self.journal.record(records)
                self.said.discard("journal_unwritable")
            except sqlite3.Error as error:
                self._say_once("journal_unwritable", file=self.journal.path, why=error)

    def _sent(self, result: _Result, sent: Sent, now: float) -> None:
        if self.patience.succeeded():
            log("sync.healed")
        self.backlog.succeeded(result.path, result.seen, now)
        event = "sync.already_there" if sent.was_there else "sync.uploaded"
        log(event, key=sent.key, bytes=sent.size, seconds=result.seconds)
        if not sent.was_there:
            self.uploaded_files += 1
            self.uploaded_bytes += sent.size
        self.report.update(now, last_success_key=sent.key, last_success_at=time.time())

    def _failed(self, result: _Result, error: BaseException, now: float) -> None:
        try:
            if isinstance(error, FileChangedError | FileNotFoundError):
                raise FileChangedError
            failure = classify(error, self.bucket.endpoint, self.bucket.name)
        except FileChangedError:
            self.backlog.failed(result.path, now)
            self.backlog.observe(result.path, look(self.root, result.path), now)
            return
        if failure.everywhere:
            new = self.patience.failed(failure, now, self.stop_at is not None)
            self.backlog.failed(result.path, now)
        else:
            attempts = self.backlog.failed(result.path, now)
            self.backlog.waiting[result.path].look_at = now + pause_after(attempts, self.stop_at is not None)
            new = attempts == 1
        if new:
            log("sync.failed", kind=failure.kind, file=result.path, why=failure.sentence)
        self._note_error(failure, now)

    def _note_error(self, failure: Failure, now: float) -> None:
        self.report.update(now, last_error=failure.sentence, last_error_kind=failure.kind, last_error_at=time.time())

    def _link(self, path: str) -> None:
        if path not in self.links:
            self.links.add(path)
            log("sync.link_not_followed", file=path)

    def _say_once(self, event: str, **fields: object) -> None:
        if event not in self.said:
            self.said.add(event)
            log(f"sync.{event}", **fields)

    def _report(self, now: float) -> None:
        left = self.backlog.left().values()
        failure = self.patience.failure
        self.report.update(
            now,
            backlog_files=len(left),
            backlog_bytes=sum(entry.seen.size for entry in left),
            uploading=self.busy,
            uploaded_files=self.uploaded_files,
            uploaded_bytes=self.uploaded_bytes,
            problem=failure.sentence if failure else "",
        )

    def _say_left(self) -> None:
        left = self.backlog.left()
        for path, entry in sorted(left.items()):
            log("sync.left", file=path, bytes=entry.seen.size, means="the next start sends it")
        self.report.update(
            time.monotonic(), force=True, pid=None, backlog_files=len(left), uploading=0, left=sorted(left)[:1000]
        )
        log("sync.stopped", uploaded=self.uploaded_files, left=len(left))
