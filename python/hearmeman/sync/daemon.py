"""The sync's loop: look at the tree, send what is ready, note what is done, until it is stopped."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import select
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from hearmeman.log import log
from hearmeman.sync.backlog import Backlog
from hearmeman.sync.cost import Pricer
from hearmeman.sync.failures import classify
from hearmeman.sync.finished import Writer, form_of
from hearmeman.sync.journal import Journal, OpenUpload
from hearmeman.sync.multipart import MULTIPART_ABOVE, FileChangedError
from hearmeman.sync.once import Once
from hearmeman.sync.outcomes import Outcomes, Result
from hearmeman.sync.report import Report
from hearmeman.sync.survey import Survey
from hearmeman.sync.tree import Names, Seen, look
from hearmeman.sync.upload import Sent, Uploader
from hearmeman.sync.watch import Watch

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
USAGE_SECONDS = 30.0
WRITE_PAUSE = 2.0
"""Seconds after which a journal that could not be written is tried again."""
_SLICE = 0.05
_TOGETHER = 50
"""Milliseconds in which news is collected."""


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

        `drain` is the seconds it may use after it is asked to stop, `at_once` the files it sends at one time; without
        `watch` it finds changes only by looking.
        """
        self.uploader, self.names, self.journal, self.report = uploader, names, journal, report
        self.root, self.bucket = uploader.root, uploader.bucket
        self.drain, self.at_once = drain, at_once
        self.backlog = Backlog(journal.done(), time.time() - time.monotonic())
        self.outcomes = Outcomes(self.backlog, report, self.bucket.endpoint, self.bucket.name)
        self.patience = self.outcomes.patience
        self.once = Once()
        self.watch = Watch(self.root) if watch else None
        enter = self.watch.add if self.watch else lambda folder: None
        self.survey = Survey(self.root, names, self._observe, self.backlog.knows, enter)
        self.events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.poll, self.bell_alone = select.poll(), select.poll()
        self.poll.register(self.bell, select.POLLIN)
        self.bell_alone.register(self.bell, select.POLLIN)
        if self.watch and self.watch.descriptor >= 0:
            self.poll.register(self.watch.descriptor, select.POLLIN)
        self.results: list[Result] = []
        self.workers = ThreadPoolExecutor(at_once, thread_name_prefix="upload")
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self.writing, self.write_at, self.pricer = False, 0.0, Pricer(journal)
        self.busy = self.busy_large = 0
        self.large: deque[str] = deque()
        self.changed_at, self.all_at, self.usage_at = 0.0, 0.0, USAGE_SECONDS
        self.all_began: float | None = None
        self.looked_at_all = self.news_lost = False
        self.stop_at: float | None = None
        self.untold = False

    def stop(self) -> None:
        """Ask it to send what is left and end; can be called from a signal handler."""
        self._call(self._stop)

    def run(self) -> bool:
        """Work until stopped; True if nothing was left."""
        now = time.monotonic()
        while not self._finished(now):
            self._wait(now)
            now = time.monotonic()
            self._take_results(now)
            self._look_around(now)
            self._start_uploads(now)
            self._write_journal(now)
            self._report(now)
        return self._end()

    def _call(self, what: Callable[[], None]) -> None:
        """Let the loop do something soon; from any thread."""
        self.events.put(what)
        os.eventfd_write(self.bell, 1)

    def _stop(self) -> None:
        if self.stop_at is None:
            now = time.monotonic()
            self.stop_at = now + self.drain
            self.looked_at_all = False
            self._ask_all(now)
            self._ask_changed(now)
            self.patience.until = 0.0
            self.backlog.stop(now)
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
        if self.untold:
            due.append(self.report.due_at)
        ready = self.poll.poll(math.ceil(max(0.0, min(due) - now) * 1000))
        if ready and all(descriptor != self.bell for descriptor, _ in ready):
            # Only news: what is written in many small pieces is taken together.
            self.bell_alone.poll(_TOGETHER)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.bell)
        try:
            while True:
                self.events.get_nowait()()
        except queue.Empty:
            pass

    def _look_around(self, now: float) -> None:
        self._hear(now)
        if self.stop_at is None and now >= self.changed_at:
            self._ask_changed(now)
        if (self.news_lost or (self.stop_at is None and now >= self.all_at)) and self.all_began is None:
            self.news_lost = False
            self._ask_all(now)
        self.survey.advance(_SLICE)

    def _hear(self, now: float) -> None:
        """Take in what the kernel has reported by now."""
        if self.watch is None:
            return
        news = self.watch.read()
        for path, writer in news.files.items():
            if self.names.path(path):
                self._look(path, now, writer, reported=True)
        for folder in news.folders:
            if all(self.names.folder(part) for part in folder.split("/")):
                self.survey.ask_folder(folder)
        if news.lost:
            log("sync.news_lost", means="more changed at once than the kernel queues: the whole folder is scanned")
            self.backlog.forget_writers()
            self.news_lost = True

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
                self.once.say("sync.link_not_followed", link, file=link)
            for folder, why in self.survey.unreadable.items():
                self.once.say("sync.unreadable_folder", folder, folder=self.root / folder, why=why)
            self._say_unwatched()
            if not self.looked_at_all and self.stop_at == stop_at:
                self.looked_at_all = True
                left = len(self.backlog.left())
                log("sync.reconciled", files=len(found), left=left, seconds=later - now)
            if self.stop_at is None:
                self._abandon()

        self.survey.ask_all(ended)

    def _look(self, path: str, now: float, writer: Writer | None = None, reported: bool = False) -> None:
        try:
            seen = look(self.root, path)
        except OSError as error:
            self.once.say("sync.unreadable_file", path, file=path, why=error.strerror)
            if path in self.backlog.waiting:
                self.backlog.put_back(path, now + 5)
            return
        if reported:
            self.backlog.reported(path, seen, writer, now)
        else:
            self.backlog.observe(path, seen, now)

    def _start_uploads(self, now: float) -> None:
        while self._slots(now) > 0:
            path = self._next(now)
            if path is None:
                return
            self._look(path, now)
            # What was written before this look is known now; what is written after it changes the file's time.
            self._hear(now)
            entry = self.backlog.waiting.get(path)
            if entry is None or entry.look_at > now or not self.backlog.ready(path, form_of(self.root / path), now):
                continue
            is_large = entry.seen.size > MULTIPART_ABOVE
            if is_large and self.busy_large >= LARGE_AT_ONCE:
                self.large.append(path)
                continue
            self.busy += 1
            self.busy_large += is_large
            # One that nobody was seen to write may have been sent by a pod before this one.
            maybe_there = entry.writer is Writer.UNKNOWN and self.journal.record_of(path) is None
            self.workers.submit(self._upload, path, self.backlog.started(path), maybe_there)

    def _next(self, now: float) -> str | None:
        while self.large and self.busy_large < LARGE_AT_ONCE:
            path = self.large.popleft()
            if path in self.backlog.waiting and not self.backlog.waiting[path].busy:
                return path
        return self.backlog.next_due(now)

    def _upload(self, path: str, seen: Seen, maybe_there: bool) -> None:
        began = time.monotonic()
        outcome: Sent | BaseException
        try:
            outcome = self.uploader.upload(path, seen, maybe_there=maybe_there)
        except BaseException as error:
            outcome = error
        result = Result(path, seen, outcome, time.monotonic() - began)
        self._call(lambda: self.results.append(result))

    def _take_results(self, now: float) -> None:
        results, self.results = self.results, []
        records = []
        for result in results:
            self.busy -= 1
            self.busy_large -= result.seen.size > MULTIPART_ABOVE
            if record := self.outcomes.take(result, now, self.stop_at is not None):
                records.append(record)
            self._look(result.path, now)
        if results or now >= self.usage_at:
            self.usage_at = now + USAGE_SECONDS
            sent_bytes = sum(r.outcome.size for r in results if isinstance(r.outcome, Sent) and not r.outcome.was_there)
            self.journal.record(records, {**self.bucket.requests.take(), "bytes": sent_bytes})

    def _write_journal(self, now: float) -> None:
        """Let a thread write what is queued: the disk may take its time, and uploads go on meanwhile."""
        if (self.journal.is_behind or self.journal.problem) and not self.writing and now >= self.write_at:
            self.writing = True
            self.writer.submit(self._flush)
        problem = self.journal.problem
        self.once.say_while("sync.journal_unwritable", problem, file=self.journal.path, why=problem)

    def _flush(self) -> None:
        ok, cost = self.journal.flush(), self.pricer.look(time.monotonic())
        self._call(lambda: self._written(ok, cost))

    def _written(self, ok: bool, cost: dict[str, float]) -> None:
        self.report.note(cost=cost)
        self.writing = False
        self.write_at = 0.0 if ok else time.monotonic() + WRITE_PAUSE

    def _say_unwatched(self) -> None:
        if self.watch is not None:
            means = (
                "files there are found by scanning, and count as finished once they have not changed for long enough"
            )
            problem = self.watch.problem
            self.once.say_while("sync.unwatched", problem, folders=len(self.watch.unwatched), why=problem, means=means)

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
            self.once.say("sync.not_aborted", upload.upload_id, key=upload.key, why=why, means="it will be retried")
        else:
            log("sync.aborted", key=upload.key, means="its file is gone or changed")

    def _report(self, now: float, force: bool = False) -> None:
        self.untold = not force and now < self.report.due_at
        if self.untold:
            return
        failure = self.patience.failure
        self.report.note(
            backlog_files=len(self.backlog.left()),
            backlog_bytes=self.backlog.bytes,
            uploading=self.busy,
            journaled_files=len(self.backlog.done),
            problem=failure.sentence if failure else self.journal.problem,
            **self.outcomes.facts(),
        )
        self.report.write(now)
        problem = self.report.problem
        self.once.say_while("sync.report_unwritable", problem, file=self.report.path, why=problem)

    def _end(self) -> bool:
        self.journal.record([], self.bucket.requests.take())
        left = self.backlog.left()
        for path, entry in sorted(left.items())[:1000]:
            log("sync.left", file=path, bytes=entry.seen.size, means="the next start sends it")
        if len(left) > 1000:
            log("sync.left", more=len(left) - 1000)
        if not self.looked_at_all:
            log("sync.unseen", means="the folder was not scanned to its end; the next start does that")
        self.report.note(pid=None, left=sorted(left)[:1000])
        self._report(time.monotonic(), force=True)
        log("sync.stopped", uploaded=self.outcomes.uploaded_files, left=len(left))
        return not left and self.looked_at_all and self.journal.flush()
