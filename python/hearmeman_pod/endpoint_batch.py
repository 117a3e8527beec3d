"""A file of jobs on an endpoint: RunPod's queue is the engine; each row is queued once, and its result saved once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from hearmeman.workflows.batch import Journal
from hearmeman_pod.errors import ApiError, PodError, UnknownOutcomeError, UsageError
from hearmeman_pod.jobs import ENDED, Jobs, reason, save

JOURNAL = "endpoint-batch.jsonl"
PAUSE = 3.0
"""Seconds between two looks at the jobs."""


@dataclass(frozen=True)
class Row:
    """One job of the file."""

    number: int
    """Counted from 1."""
    content: Mapping[str, Any]
    """The job's input."""

    @property
    def key(self) -> str:
        """Names what the row asks for; a row that was changed is another."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()


def read_rows(path: Path) -> list[Row]:
    """Read a .jsonl with one job's input a line, such as {"workflow": "z-image-turbo", "set": {"prompt": "a cat"}}.

    Raises:
        UsageError: it cannot be read, or a line is no such object.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
    rows: list[Row] = []
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except ValueError as error:
            raise UsageError(f"line {place} of {path} is not JSON ({error}); nothing was sent") from error
        if not isinstance(content, dict) or "workflow" not in content:
            raise UsageError(f"line {place} of {path} is not an object with a workflow; nothing was sent")
        rows.append(Row(len(rows) + 1, content))
    if not rows:
        raise UsageError(f"{path} has no jobs")
    return rows


def run(
    jobs: Jobs,
    rows: Sequence[Row],
    out: Path,
    client: httpx2.Client,
    say: Callable[[str], None],
    retry: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> list[dict[str, Any]]:
    """Queue what was not queued yet, wait for all, save the files in `out`/ROW/; the last event of every row.

    With `retry` rows that failed are queued again.

    Raises:
        PodError: RunPod cannot be reached; what was queued goes on, and the same command collects it.
    """
    journal = Journal(out / JOURNAL)
    journal.open()
    try:
        waiting: dict[int, str] = {}
        for row in rows:
            before = journal.events.get(row.number, {})
            state = before.get("state") if before.get("key") == row.key else None
            if state == "sending" and not retry:
                _note(
                    journal,
                    row,
                    state="failed",
                    why="it is not known whether RunPod queued it; --retry queues it again",
                )
            elif state == "queued":
                waiting[row.number] = before["job"]
            elif state != "done" and (state != "failed" or retry):
                _queue(jobs, journal, row, waiting)
        say(
            f"{len(rows)} jobs: {len(waiting)} queued, {len(rows) - len(waiting)} have ended before or could "
            "not be queued"
        )
        _collect(jobs, journal, {row.number: row for row in rows}, waiting, out, client, say, sleep)
        return [journal.events[row.number] for row in rows]
    finally:
        journal.close()


def _queue(jobs: Jobs, journal: Journal, row: Row, waiting: dict[int, str]) -> None:
    # On disk before it is sent: what is sent twice is paid for twice.
    _note(journal, row, state="sending")
    try:
        job = jobs.submit(row.content)
    except UnknownOutcomeError as error:
        why = f"{error}; it may be queued: --retry queues it again"
        _note(journal, row, state="failed", why=why)
    except ApiError as error:
        _note(journal, row, state="failed", why=str(error))
        if error.status in (401, 403, 404):
            raise
    except PodError as error:
        _note(journal, row, state="failed", why=str(error))
        raise
    else:
        waiting[row.number] = job
        _note(journal, row, state="queued", job=job)


def _collect(
    jobs: Jobs,
    journal: Journal,
    rows: Mapping[int, Row],
    waiting: dict[int, str],
    out: Path,
    client: httpx2.Client,
    say: Callable[[str], None],
    sleep: Callable[[float], None],
) -> None:
    while waiting:
        for number, job in list(waiting.items()):
            try:
                state = jobs.state(job)
            except ApiError as error:
                if error.status != 404:
                    raise
                # RunPod keeps results for a while only.
                state = {"status": "FAILED", "error": "RunPod no longer knows the job; --retry queues it again"}
            if state.get("status") not in ENDED:
                continue
            del waiting[number]
            why, names = reason(state), []
            if not why:
                try:
                    names = save(state.get("output"), out / str(number), client)
                except PodError as error:
                    why = str(error)
            event = {"state": "failed", "why": why} if why else {"state": "done", "files": names}
            seconds = (state.get("executionTime") or 0) / 1000
            _note(journal, rows[number], job=job, seconds=seconds, **event)
            say(f"row {number}: {why or ', '.join(names) or 'no files'}; {len(waiting)} left")
        if waiting:
            sleep(PAUSE)


def _note(journal: Journal, row: Row, **event: Any) -> None:
    journal.write({"row": row.number, "key": row.key, **event})
