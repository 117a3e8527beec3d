"""Takes in what came of each upload: what is done, what failed and why, and who has to wait for how long."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from hearmeman.log import log
from hearmeman.sync.backlog import Backlog
from hearmeman.sync.failures import KINDS, Failure, classify
from hearmeman.sync.journal import Record
from hearmeman.sync.multipart import FileChangedError
from hearmeman.sync.patience import Patience, pause_after
from hearmeman.sync.report import Report
from hearmeman.sync.tree import Seen
from hearmeman.sync.upload import Sent

SUSPICIOUS_CHANGES = 3
"""A file that so often in a row held other bytes than a moment before, though it looks the same, is a failure."""
HURRIED_ATTEMPTS = 2
"""Files that failed so often in an outage, or less, are tried at once when it ends; the others keep their pause."""
NAMED = 20
"""Failing files that the report names."""


@dataclass(frozen=True)
class Result:
    """An upload that has ended."""

    path: str
    """The file."""
    seen: Seen
    """What it looked like when the upload began."""
    outcome: Sent | BaseException
    """What came of it."""
    seconds: float
    """How long it took."""


class Outcomes:
    """Keeps backlog, patience and report in step with what uploads come to."""

    def __init__(self, backlog: Backlog, report: Report, endpoint: str, bucket: str) -> None:
        """Take what is kept in step, and the names that its sentences give."""
        self.backlog, self.report, self.endpoint, self.bucket = backlog, report, endpoint, bucket
        self.patience = Patience()
        self.uploaded_files = self.uploaded_bytes = 0
        self._unix = time.time() - time.monotonic()
        self._succeeded_at = 0.0
        self._failed_last = ""
        self._said: dict[str, set[str]] = {}
        # From zero: what counts failures over time cannot tell that one appeared with the first.
        self._kinds = Counter(dict.fromkeys(KINDS, 0))

    def take(self, result: Result, now: float, stopping: bool) -> Record | None:
        """Take one in; a record if the file is in the bucket as it is."""
        if isinstance(result.outcome, Sent):
            return self._sent(result, result.outcome, now)
        self._failed(result, result.outcome, now, stopping)
        return None

    def _sent(self, result: Result, sent: Sent, now: float) -> Record | None:
        failures = self.backlog.waiting[result.path].attempts
        self._succeeded_at = now
        self._said.pop(result.path, None)
        if self.patience.succeeded():
            log("sync.healed")
            self.backlog.hurry(now, HURRIED_ATTEMPTS)
        after = {"failures": failures} if failures else {}
        log(
            "sync.already_there" if sent.was_there else "sync.uploaded",
            key=sent.key,
            bytes=sent.size,
            seconds=result.seconds,
            **after,
        )
        if not sent.was_there:
            self.uploaded_files += 1
            self.uploaded_bytes += sent.size
        self.report.note(last_success_key=sent.key, last_success_at=time.time())
        if result.path == self._failed_last:
            self.report.note(last_error_fixed_at=time.time())
        if not self.backlog.succeeded(result.path, result.seen, now):
            return None
        return Record(result.path, sent.size, result.seen.mtime_ns, sent.sha256, sent.key, time.time())

    def _failed(self, result: Result, error: BaseException, now: float, stopping: bool) -> None:
        entry = self.backlog.waiting[result.path]
        said = self._said.setdefault(result.path, set())
        if not entry.attempts:  # It has changed since it failed, or never did.
            said.clear()
        failure = self._classify(error)
        if failure is None and entry.attempts < SUSPICIOUS_CHANGES:
            # One that truly changed is waited for anyway, and counts its attempts anew.
            pause = pause_after(entry.attempts, stopping) if entry.attempts else 0.0
            self.backlog.failed(result.path, now + pause)
            return
        failure = failure or Failure("changed", "it reads differently each time", False)
        # Where other files have arrived since this one failed, what fails is about this file alone.
        everywhere = failure.everywhere and not (entry.failure is not None and self._succeeded_at > entry.failed_at)
        self._kinds[failure.kind] += 1
        # A pause of its own for this file too: it may be its connection alone, and others come next.
        again_at = now + pause_after(entry.attempts + 1, stopping)
        self.backlog.failed(result.path, again_at, failure, now)
        new = self.patience.failed(failure, now, stopping) if everywhere else True
        if new and failure.kind not in said:
            log("sync.failed", kind=failure.kind, file=result.path, why=failure.sentence)
        said.add(failure.kind)
        self._failed_last = result.path
        self.report.note(
            last_error=failure.sentence,
            last_error_kind=failure.kind,
            last_error_file=result.path,
            last_error_at=time.time(),
            last_error_fixed_at=None,
        )

    def _classify(self, error: BaseException) -> Failure | None:
        """Name a failure; None if the file has changed or is gone."""
        if isinstance(error, FileNotFoundError):
            return None
        try:
            return classify(error, self.endpoint, self.bucket)
        except FileChangedError:
            return None

    def facts(self) -> dict[str, object]:
        """Give what the report says of all this: what fails is counted, and some of it is named."""
        failing = self.backlog.failing()
        named = [
            {
                "file": path,
                "kind": entry.failure.kind,
                "why": entry.failure.sentence,
                "failures": entry.attempts,
                "since": self._unix + entry.failing_since,
            }
            for path, entry in sorted(failing.items())[:NAMED]
            if entry.failure is not None
        ]
        oldest = min((entry.still_since for entry in self.backlog.waiting.values()), default=None)
        return {
            # Since when the file waits that waits longest.
            "waiting_since": None if oldest is None else round(self._unix + oldest, 1),
            "failures_by_kind": dict(self._kinds),
            "uploaded_files": self.uploaded_files,
            "uploaded_bytes": self.uploaded_bytes,
            "failing_files": len(failing),
            "failing": named,
        }
