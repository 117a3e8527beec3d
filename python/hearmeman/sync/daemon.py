"""The sync's loop: look at the tree, send what is ready, note what is done, until told to stop."""

from __future__ import annotations

import queue
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hearmeman.log import log
from hearmeman.sync.backlog import Backlog
from hearmeman.sync.failures import Failure, classify
from hearmeman.sync.finished import sign
from hearmeman.sync.hints import Hints
from hearmeman.sync.journal import Journal, OpenUpload, Record
from hearmeman.sync.multipart import MULTIPART_ABOVE, FileChangedError
from hearmeman.sync.patience import Patience, pause_after
from hearmeman.sync.report import Report
from hearmeman.sync.survey import Survey
from hearmeman.sync.tree import Names, Seen, look
from hearmeman.sync.upload import Sent, Uploader

LARGE_AT_ONCE = 4
"""Files sent in parts at one time: the others' places are for small files, which would wait behind them."""
CHANGED_SECONDS = 2.0
"""Seconds between two looks at which folders have changed."""
CHANGED_SHARE = 0.02
"""The part of the time that this may take."""
ALL_SECONDS = 15.0
"""Seconds between two looks at everything, at least."""
ALL_SHARE = 0.005
"""The part of the time that looking at everything may take."""
ALL_SECONDS_MOST = 900.0
SUSPICIOUS_CHANGES = 3
"""So often in a row may a file have changed while it was sent, though it looks the same, before that is said."""
USAGE_SECONDS = 30.0
WRITE_PAUSE = 2.0
"""Seconds after which a journal that could not be written is tried again."""
HURRIED_ATTEMPTS = 2
"""Files that failed so often in an outage, or less, are tried at once when it ends; the others keep their pause."""
_SLICE = 0.05


@dataclass(frozen=True)
class _Result:
    path: str
    seen: Seen
    outcome: Sent | BaseException
    seconds: float


class Daemon:
    """Keeps one folder's outputs in one bucket."""

    def __init__(
        self,
        uploader: Uploader,
        names: Names,
        journal: Journal,
        report: Report,
        drain: float,
        at_once: int = 8,
        watch: bool = True,
    ) -> None:
        """Take what it works with.

        `drain` is the seconds it may use after it is told to stop, `at_once` the files it sends at one time; without
        `watch` it finds changes only by looking.
        """
        self.uploader, self.names, self.journal, self.report = uploader, names, journal, report
        self.root, self.bucket = uploader.root, uploader.bucket
        self.drain, self.at_once, self.watch = drain, at_once, watch
        self.backlog = Backlog(journal.done())
        self.survey = Survey(self.root, names, self._observe, self.backlog.knows)
        self.patience = Patience()
        self.events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.results: list[_Result] = []
        self.hinted: set[str] = set()
        self.workers = ThreadPoolExecutor(at_once, thread_name_prefix="upload")
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self.writing, self.write_at = False, 0.0
        self.busy = self.busy_large = 0
        self.large: deque[str] = deque()
        self.changed_at, self.all_at, self.usage_at = 0.0, 0.0, USAGE_SECONDS
        self.all_began: float | None = None
        self.looked_at_all = False
        self.stop_at: float | None = None
        self.uploaded_files = self.uploaded_bytes = 0
        self.said: dict[str, object] = {}

    def stop(self) -> None:
        """Tell it to send what is left and end; can be called from a signal handler."""
        self.events.put(self._stop)

    def run(self) -> bool:
        """Work until told to stop; True if nothing was left."""
        hints = Hints(self.root, self._heard)
        if self.watch:
            hints.start()
        now = time.monotonic()
        while not self._finished(now):
            self._wait(now)
            now = time.monotonic()
            self._take_results(now)
            self._look_around(now)
            self._start_uploads(now)
            self._write_journal(now)
            self._report(now)
        hints.stop.set()
        return self._end()

    def _heard(self, paths: set[str]) -> None:
        self.events.put(lambda: self.hinted.update(paths))

    def _stop(self) -> None:
        if self.stop_at is None:
            now = time.monotonic()
            self.stop_at = now + self.drain
            self.looked_at_all = False
            self._ask_all(now)
            self._ask_changed(now)
            self.patience.until = 0.0
            self.backlog.hurry(now, sys.maxsize)
            log("sync.stopping", left=len(self.backlog.left()), within=self.drain)

    def _finished(self, now: float) -> bool:
        if self.stop_at is None:
            return False
        return now >= self.stop_at or (self.looked_at_all and not self.busy and not self.backlog.left())

    def _slots(self, now: float) -> int:
        return self.patience.slots(self.at_once, now) - self.busy

    def _wait(self, now: float) -> None:
        """Wait until something happens or is due; several things at once are taken together."""
        due = [self.changed_at, self.all_at] if self.stop_at is None else [self.stop_at]
        if self.survey.busy:
            due.append(now)
        if self._slots(now) > 0:
            look_at = self.backlog.next_look()
            due.append(self.all_at if look_at is None else look_at)
        elif self.patience.failure is not None and not self.busy:
            due.append(self.patience.until)
        try:
            self.events.get(timeout=max(0.0, min(due) - now))()
            while True:
                self.events.get_nowait()()
        except queue.Empty:
            pass

    def _look_around(self, now: float) -> None:
        hinted, self.hinted = self.hinted, set()
        for absolute in hinted:
            self._look_at_hint(absolute, now)
        if self.stop_at is None and now >= self.changed_at:
            self._ask_changed(now)
        if self.stop_at is None and now >= self.all_at and self.all_began is None:
            self._ask_all(now)
        self.survey.advance(_SLICE)

    def _observe(self, path: str, seen: Seen) -> None:
        self.backlog.observe(path, seen, time.monotonic())

    def _ask_changed(self, now: float) -> None:
        self.changed_at = float("inf")

        def ended() -> None:
            later = time.monotonic()
            self.changed_at = later + max(CHANGED_SECONDS, (later - now) / CHANGED_SHARE)

        self.survey.ask_changed(ended)

    def _ask_all(self, now: float) -> None:
        self.all_began, stop_at = now, self.stop_at

        def ended(found: set[str]) -> None:
            later = time.monotonic()
            pause = max(ALL_SECONDS, (later - now) / ALL_SHARE)
            self.all_at, self.all_began = later + min(pause, ALL_SECONDS_MOST), None
            self.backlog.vanished(found, later)
            for link in sorted(self.survey.links):
                self._say(f"link_not_followed {link}", file=link)
            for folder, why in self.survey.unreadable.items():
                self._say(f"unreadable_folder {folder}", folder=self.root / folder, why=why)
            if not self.looked_at_all and self.stop_at == stop_at:
                self.looked_at_all = True
                left = len(self.backlog.left())
                log("sync.reconciled", files=len(found), left=left, seconds=later - now)
            if self.stop_at is None:
                self._abandon()

        self.survey.ask_all(ended)

    def _look_at_hint(self, absolute: str, now: float) -> None:
        relative = absolute.removeprefix(f"{self.root}/")
        if absolute == str(self.root) or relative == absolute:
            self.changed_at = min(self.changed_at, now)
        elif self.names.path(relative):
            self._look(relative, now)
        elif all(self.names.folder(part) for part in relative.split("/")) and (self.root / relative).is_dir():
            self.survey.ask_folder(relative)

    def _look(self, path: str, now: float) -> None:
        try:
            self.backlog.observe(path, look(self.root, path), now)
        except OSError as error:
            self._say(f"unreadable_file {path}", file=path, why=error.strerror)
            if path in self.backlog.waiting:
                self.backlog.put_back(path, now + 5)

    def _start_uploads(self, now: float) -> None:
        while self._slots(now) > 0:
            path = self._next(now)
            if path is None:
                return
            self._look(path, now)
            entry = self.backlog.waiting.get(path)
            if entry is None or entry.look_at > now or not self.backlog.ready(path, sign(self.root / path), now):
                continue
            is_large = entry.seen.size > MULTIPART_ABOVE
            if is_large and self.busy_large >= LARGE_AT_ONCE:
                self.large.append(path)
                continue
            self.busy += 1
            self.busy_large += is_large
            self.workers.submit(self._upload, path, self.backlog.started(path))

    def _next(self, now: float) -> str | None:
        while self.large and self.busy_large < LARGE_AT_ONCE:
            path = self.large.popleft()
            if path in self.backlog.waiting and not self.backlog.waiting[path].busy:
                return path
        return self.backlog.next_due(now)

    def _upload(self, path: str, seen: Seen) -> None:
        began = time.monotonic()
        outcome: Sent | BaseException
        try:
            outcome = self.uploader.upload(path, seen)
        except BaseException as error:
            outcome = error
        result = _Result(path, seen, outcome, time.monotonic() - began)
        self.events.put(lambda: self.results.append(result))

    def _take_results(self, now: float) -> None:
        results, self.results = self.results, []
        records = []
        for result in results:
            self.busy -= 1
            self.busy_large -= result.seen.size > MULTIPART_ABOVE
            if isinstance(result.outcome, Sent):
                sent = result.outcome
                records.append(Record(result.path, sent.size, result.seen.mtime_ns, sent.sha256, sent.key, time.time()))
                self._sent(result, sent, now)
            else:
                self._failed(result, result.outcome, now)
        if records or now >= self.usage_at:
            self.usage_at = now + USAGE_SECONDS
            sent_bytes = sum(r.outcome.size for r in results if isinstance(r.outcome, Sent) and not r.outcome.was_there)
            self.journal.record(records, {**self.bucket.requests.take(), "bytes": sent_bytes})

    def _write_journal(self, now: float) -> None:
        """Let a thread write what is queued: the disk may take its time, and uploads go on meanwhile."""
        if (self.journal.is_behind or self.journal.problem) and not self.writing and now >= self.write_at:
            self.writing = True
            self.writer.submit(self._flush)
        self._say_while("journal_unwritable", self.journal.problem, file=self.journal.path, why=self.journal.problem)

    def _flush(self) -> None:
        ok = self.journal.flush()
        self.events.put(lambda: self._written(ok))

    def _written(self, ok: bool) -> None:
        self.writing = False
        self.write_at = 0.0 if ok else time.monotonic() + WRITE_PAUSE

    def _sent(self, result: _Result, sent: Sent, now: float) -> None:
        if self.patience.succeeded():
            log("sync.healed")
            self.backlog.hurry(now, HURRIED_ATTEMPTS)
        self.backlog.succeeded(result.path, result.seen, now)
        self._look(result.path, now)
        event = "sync.already_there" if sent.was_there else "sync.uploaded"
        log(event, key=sent.key, bytes=sent.size, seconds=result.seconds)
        if not sent.was_there:
            self.uploaded_files += 1
            self.uploaded_bytes += sent.size
        self.report.note(last_success_key=sent.key, last_success_at=time.time())

    def _failed(self, result: _Result, error: BaseException, now: float) -> None:
        stopping = self.stop_at is not None
        try:
            if isinstance(error, FileNotFoundError):
                raise FileChangedError
            failure = classify(error, self.bucket.endpoint, self.bucket.name)
        except FileChangedError:
            attempts = self.backlog.waiting[result.path].attempts
            # One that truly changed is waited for anyway, and counts its attempts anew.
            self.backlog.failed(result.path, now + (pause_after(attempts, stopping) if attempts else 0.0))
            self._look(result.path, now)
            if attempts == SUSPICIOUS_CHANGES:
                log("sync.failed", kind="changed", file=result.path, why="each time it is read it holds other bytes")
            return
        entry = self.backlog.waiting[result.path]
        # A pause of its own for this file too: what fails may be this file's connection alone, and others come next.
        self.backlog.failed(result.path, now + pause_after(entry.attempts + 1, stopping))
        if failure.everywhere:
            new = self.patience.failed(failure, now, stopping)
        else:
            new = entry.attempts == 1
            self.journal.failed(result.path, entry.attempts, failure.sentence)
        if new:
            log("sync.failed", kind=failure.kind, file=result.path, why=failure.sentence)
        self.report.note(last_error=failure.sentence, last_error_kind=failure.kind, last_error_at=time.time())

    def _abandon(self) -> None:
        """Give up what is half sent of files that are gone, or in the bucket after all."""
        for upload in self.journal.open_uploads():
            if upload.path not in self.backlog.waiting:
                self.workers.submit(self._give_up, upload)

    def _give_up(self, upload: OpenUpload) -> None:
        try:
            self.uploader.parts.give_up(upload)
        except Exception as error:
            try:
                why = classify(error, self.bucket.endpoint, self.bucket.name).sentence
            except FileChangedError:
                why = ""
            self._say(f"not_given_up {upload.upload_id}", key=upload.key, why=why, means="it is tried again later")
        else:
            log("sync.given_up", key=upload.key, means="its file is gone or changed")

    def _say(self, event: str, **fields: object) -> None:
        """Log one event, unless it was said before."""
        if event not in self.said:
            self.said[event] = True
            log(f"sync.{event.partition(' ')[0]}", **fields)

    def _say_while(self, event: str, problem: str, **fields: object) -> None:
        """Log a problem when it comes and when it is gone."""
        if problem and event not in self.said:
            self._say(event, **fields)
        elif not problem and self.said.pop(event, None):
            log("sync.healed", of=event)

    def _report(self, now: float, force: bool = False) -> None:
        if not force and not self.report.due(now):
            return
        failure: Failure | None = self.patience.failure
        self.report.note(
            backlog_files=len(self.backlog.left()),
            backlog_bytes=self.backlog.bytes,
            uploading=self.busy,
            uploaded_files=self.uploaded_files,
            uploaded_bytes=self.uploaded_bytes,
            journaled_files=len(self.backlog.done),
            problem=failure.sentence if failure else self.journal.problem,
        )
        self.report.write(now)
        self._say_while("report_unwritable", self.report.problem, file=self.report.path, why=self.report.problem)

    def _end(self) -> bool:
        self.journal.record([], self.bucket.requests.take())
        left = self.backlog.left()
        for path, entry in sorted(left.items())[:1000]:
            log("sync.left", file=path, bytes=entry.seen.size, means="the next start sends it")
        if len(left) > 1000:
            log("sync.left", more=len(left) - 1000)
        if not self.looked_at_all:
            log("sync.unseen", means="the folder was not looked through to its end; the next start does that")
        self.report.note(pid=None, left=sorted(left)[:1000])
        self._report(time.monotonic(), force=True)
        log("sync.stopped", uploaded=self.uploaded_files, left=len(left))
        return not left and self.looked_at_all and self.journal.flush()
