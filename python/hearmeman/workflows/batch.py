"""Runs one workflow for every row of a file: a few at a time, each row once, and resumable after any interruption."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import fcntl
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hearmeman.errors import HearmemanError, UsageError
from hearmeman.workflows.answers import (
    AccessError,
    NotReachableError,
    Progress,
    Result,
    RunFailedError,
    TimedOutError,
)
from hearmeman.workflows.client import Client, new_id, put_files
from hearmeman.workflows.library import Graph

JOURNAL = "batch.jsonl"


class BatchError(UsageError):
    """The file of rows or the result folder cannot be used; nothing was sent."""


@dataclass(frozen=True)
class Row:
    """One row, ready to send."""

    number: int
    """Counted from 1."""
    settings: tuple[str, ...]
    """As for --set."""
    graph: Graph
    files: Mapping[tuple[str, str], Path]
    """Files to upload: (node, input) -> path."""

    key: str
    """Identifies the row's content; a changed row is a different one."""


@dataclass
class Journal:
    """The record of every row, one line per event, on disk before anything else happens."""

    path: Path
    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Row -> its last event."""
    _file: IO[str] | None = None

    def open(self) -> None:
        """Read what an earlier run wrote, and keep others out; a half-written last line is removed.

        Raises:
            BatchError: another batch is running in the folder, or the folder cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+", encoding="utf-8")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BatchError(
                f"another batch is running in {self.path.parent}: wait for it, or give another --out"
            ) from None
        except OSError as error:
            raise BatchError(f"{self.path.parent} cannot be used for a batch: {error.strerror}") from error
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            # The next line would be appended to it, and lost with it.
            self._file.truncate(len(whole))
        _sync_folder(self.path.parent)
        for line in whole.decode(errors="replace").splitlines():
            try:
                event = json.loads(line)
                self.events[int(event["row"])] = event
            except (ValueError, KeyError, TypeError):
                continue

    def close(self) -> None:
        """Release the lock."""
        if self._file is not None:
            self._file.close()

    def write(self, event: dict[str, Any]) -> None:
        """Append one event, durably."""
        assert self._file is not None, "it is opened first"
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.events[event["row"]] = event


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_rows(path: Path) -> list[tuple[str, ...]]:
    """Read settings, one row each, from a .csv with a header or a .jsonl of objects; empty cells are left out.

    Raises:
        BatchError: it is neither, or a row is wrong; names the row.
    """
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows: list[Mapping[str, Any]] = list(csv.DictReader(file, strict=True))
        elif path.suffix.lower() in (".jsonl", ".ndjson"):
            lines = path.read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines if line.strip()]
        else:
            raise BatchError(f"{path}: a batch is a .csv with a header, or a .jsonl with one object per line")
    except OSError as error:
        raise BatchError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise BatchError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error
    found = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or None in row or any(isinstance(value, (list, dict)) for value in row.values()):
            raise BatchError(f"{path}, row {number}: give one value for each column")
        found.append(tuple(f"{key}={_text(value)}" for key, value in row.items() if value not in (None, "")))
    if not found:
        raise BatchError(f"{path} has no rows")
    return found


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def prepare(
    rows: Sequence[tuple[str, ...]],
    common: Sequence[str],
    make: Callable[[list[str]], tuple[Graph, dict[tuple[str, str], Path]]],
) -> list[Row]:
    """Make every row's graph, so that nothing is sent unless all rows are valid.

    Raises:
        BatchError: names every row that is wrong, up to ten.
    """
    made, wrong = [], []
    for number, settings in enumerate(rows, start=1):
        # A row's own value overrides the common one.
        names = {text.partition("=")[0] for text in settings}
        merged = [*(text for text in common if text.partition("=")[0] not in names), *settings]
        try:
            graph, files = make(merged)
            made.append(row(number, merged, graph, files))
        except HearmemanError as error:
            wrong.append(f"row {number}: {error}")
    if wrong:
        more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise BatchError("nothing was sent:\n" + "\n".join(f"  {text}" for text in wrong[:10]) + more)
    return made


def row(number: int, settings: Sequence[str], graph: Graph, files: Mapping[tuple[str, str], Path]) -> Row:
    """One row with its key."""
    asked = json.dumps([graph, sorted(map(str, files.values()))], sort_keys=True)
    return Row(number, tuple(settings), graph, files, hashlib.sha256(asked.encode()).hexdigest()[:16])


@dataclass(frozen=True)
class Outcome:
    """How a batch ended."""

    done: int
    """Rows that are done, now or in an earlier run."""
    failed: Mapping[int, str]
    """Row -> why."""


@dataclass(frozen=True)
class Limits:
    """How to run a batch."""

    at_once: int
    """How many rows ComfyUI gets at a time."""
    timeout: float
    """Seconds per row."""
    resume: bool = False
    """Whether to continue a batch in the folder."""


Say = Callable[[int, str, Any], None]
"""Called with a row's number, its state (sent, done, failed, before), and its prompt's id, files or error."""
Explain = Callable[[int, HearmemanError], str]
"""Formats a row's error."""


async def run(
    client: Client,
    rows: Sequence[Row],
    folder: Path,
    limits: Limits,
    say: Say,
    explain: Explain = lambda row, error: str(error),
) -> Outcome:
    """Run every row that is not done, a few at a time, and save each row's files in `folder`.

    Raises:
        BatchError: `folder` holds a batch already, and `resume` is not set; or another is at work there.
        LostError: ComfyUI went away; a resumed run goes on.
    """
    async with opened(folder, limits) as journal:
        return await run_rows(client, rows, journal, limits, say, explain)


@contextlib.asynccontextmanager
async def opened(folder: Path, limits: Limits) -> AsyncIterator[Journal]:
    """The journal of `folder`, which keeps others out.

    Raises:
        BatchError: `folder` holds a batch already, and `limits` do not say to go on; or another is at work there.
    """
    journal = Journal(folder / JOURNAL)
    journal.open()
    try:
        if journal.events and not limits.resume:
            raise BatchError(f"{folder} holds a batch already: give --resume to continue it, or another --out")
        yield journal
    finally:
        journal.close()


async def run_rows(
    client: Client, rows: Sequence[Row], journal: Journal, limits: Limits, say: Say, explain: Explain
) -> Outcome:
    """Run those rows that are not done in `journal`; raises as `run` does."""
    left = [row for row in rows if not _is_done(row, journal)]
    waiting = {row.number for row in left}
    for row in rows:
        if row.number not in waiting:
            say(row.number, "before", journal.events[row.number]["files"])
    places = asyncio.Semaphore(limits.at_once)
    failed: dict[int, str] = {}

    async def one(row: Row) -> None:
        async with places:
            try:
                files = await _one(client, row, journal, limits.timeout, say)
                say(row.number, "done", [path.name for path in files])
            except LostError:
                raise
            except TimedOutError as error:
                # The prompt was not stopped: the record stays, and a resumed run finds its results.
                failed[row.number] = str(error)
                say(row.number, "failed", str(error))
            except HearmemanError as error:
                why = failed[row.number] = explain(row.number, error)
                journal.write({"row": row.number, "key": row.key, "state": "failed", "why": why})
                say(row.number, "failed", why)

    try:
        async with asyncio.TaskGroup() as group:
            for row in left:
                group.create_task(one(row))
    except* LostError as lost:
        raise lost.exceptions[0] from None
    return Outcome(len(rows) - len(failed), failed)


class LostError(HearmemanError):
    """ComfyUI went away in the middle of a batch."""


def _is_done(row: Row, journal: Journal) -> bool:
    event = journal.events.get(row.number, {})
    if event.get("state") != "done" or event.get("key") != row.key:
        return False
    return all((journal.path.parent / name).is_file() for name in event["files"])


async def _one(client: Client, row: Row, journal: Journal, timeout: float, say: Say) -> list[Path]:
    folder = journal.path.parent
    try:
        result = await _earlier(client, row, journal, timeout)
        if result is None:
            await put_files(client, row.graph, row.files)
            # Recorded before it is sent: whatever ends this process, the next one looks for this id first.
            prompt_id = new_id()
            journal.write({"row": row.number, "key": row.key, "state": "sent", "prompt_id": prompt_id})

            def queued(sent: str) -> None:
                say(row.number, "sent", sent)

            result = await client.run(row.graph, timeout, _silent, queued, prompt_id)
        saved = []
        for number, output in enumerate(result.outputs, start=1):
            path = folder / f"row-{row.number:04}-{number}-{Path(output.filename).name}"
            await client.download(output, path)
            saved.append(path)
    except (NotReachableError, AccessError) as error:
        raise LostError(f"{error}. Finished rows are kept: run the same command with --resume to continue") from error
    files = [path.name for path in saved]
    journal.write({"row": row.number, "key": row.key, "state": "done", "files": files})
    return saved


async def _earlier(client: Client, row: Row, journal: Journal, timeout: float) -> Result | None:
    """Look up what an interrupted run sent for this row: ComfyUI may have finished it, never got it, or forgotten it."""
    event = journal.events.get(row.number, {})
    if event.get("state") != "sent" or event.get("key") != row.key:
        return None
    try:
        return await client.finish(event["prompt_id"], row.graph, timeout)
    except RunFailedError:
        return None


def _silent(progress: Progress) -> None:
    """A batch shows rows, not steps."""
