"""Remembers in SQLite what is in the bucket and what is half sent; losing it costs requests, never a file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hearmeman.log import log
from hearmeman.settings import Settings

T = TypeVar("T")

_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    sha256 TEXT NOT NULL, key TEXT NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, sha256 TEXT NOT NULL, key TEXT NOT NULL,
    upload_id TEXT NOT NULL, part_size INTEGER NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
    upload_id TEXT NOT NULL, number INTEGER NOT NULL, etag TEXT NOT NULL, PRIMARY KEY (upload_id, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage (
    month TEXT NOT NULL, what TEXT NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY (month, what)
) WITHOUT ROWID;
"""


_ADD_USAGE = (
    "INSERT INTO usage VALUES (?, ?, ?) ON CONFLICT (month, what) DO UPDATE SET amount = amount + excluded.amount"
)
_Statement = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Record:
    """A file that is in the bucket."""

    path: str
    """Relative to the output folder."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Its last change before it was sent."""
    sha256: str
    """Of its content."""
    key: str
    """Where the object lies."""
    at: float
    """Unix seconds of the upload."""


@dataclass(frozen=True)
class OpenUpload:
    """A multipart upload that is not complete."""

    path: str
    """Relative to the output folder."""
    size: int
    """Bytes of the file."""
    sha256: str
    """Of the file's content."""
    key: str
    """Where the object is to lie."""
    upload_id: str
    """The bucket's name for it; empty: it was to be begun, and whether it was is unknown."""
    part_size: int
    """Bytes of every part but the last."""
    at: float
    """Unix seconds when it was begun."""


def journal_file(state: Path, endpoint: str, bucket: str) -> Path:
    """Give the journal's place: one for each bucket, so that a new bucket is filled from the start."""
    return state / f"sync-{hashlib.sha256(f'{endpoint} {bucket}'.encode()).hexdigest()[:8]}.db"


def glance(settings: Settings, read: Callable[[Journal], T], otherwise: T) -> T:
    """Read something from this pod's journal without changing it; `otherwise` where there is none that can be read."""
    path = journal_file(Path(settings.state_path), settings.r2_endpoint, settings.r2_bucket)
    if not path.exists():
        return otherwise
    try:
        journal = Journal(path, read_only=True)
        try:
            return read(journal)
        finally:
            journal.close()
    except (sqlite3.Error, OSError) as error:
        # It saves work and is never needed: the bucket has the truth.
        log("sync.journal_unread", file=path, why=error)
        return otherwise


def open_journal(path: Path) -> Journal:
    """Open the journal at `path`; a new one begins with what other pods' journals beside it know of the same bucket.

    Raises:
        sqlite3.OperationalError: it cannot be opened here.
    """
    is_new = not path.exists()
    journal = Journal(path)
    if is_new and (found := _inherited(path)):
        journal.record(found, {})
        journal.flush()
        log("sync.inherited", files=len(found), means="pods before this one on the same volume have sent them")
    return journal


def _inherited(own: Path) -> list[Record]:
    """Read the journals `*/NAME` beside `own`'s folder: the pods of one volume write about the same files.

    A file of the same path, size and time is the same file, so nothing wrong can come of it. Left out: times in whole
    seconds, which may be two files'; journals of another user, who could say anything; journals in the middle of a
    write. None of them is changed or locked.
    """
    found: dict[str, Record] = {}
    for path in own.parent.parent.glob(f"*/{own.name}"):
        try:
            being_written = path.with_name(f"{path.name}-journal")
            if (
                path == own
                or path.stat().st_uid != os.geteuid()
                or (being_written.exists() and being_written.stat().st_size)
            ):
                continue
            uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
                if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                    continue
                rows = connection.execute("SELECT path, size, mtime_ns, sha256, key, at FROM files").fetchall()
        except (OSError, sqlite3.Error):
            continue
        for row in rows:
            record = Record(os.fsdecode(row[0]), *row[1:])
            before = found.get(record.path)
            if record.mtime_ns % 1_000_000_000 and (before is None or before.at < record.at):
                found[record.path] = record
    return list(found.values())


class Journal:
    """One SQLite file, safe from any thread.

    Notes are queued and written by `flush`, many in one transaction; what cannot be written stays in the queue.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        """Open or make it; one that is damaged is put aside.

        Raises:
            sqlite3.OperationalError: it cannot be opened here.
        """
        self.path = path
        self.problem = ""
        self._connection_lock = threading.Lock()
        self._queue_lock = threading.Lock()
        self._unwritten: list[_Statement] = []
        self._recent: dict[str, Record] = {}
        self._paths: set[str] = set()
        if read_only:
            self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
            return
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
            log("sync.journal_damaged", file=path, kept=aside, why=error, means="every file is compared again")
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        # No WAL: its shared memory does not work on network filesystems.
        connection = sqlite3.connect(self.path, timeout=10, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=TRUNCATE")
        connection.execute("PRAGMA synchronous=FULL")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        connection.executescript(_TABLES)
        return connection

    def done(self) -> dict[str, tuple[int, int]]:
        """Read path -> (size, mtime_ns) of every file that is in the bucket."""
        rows = self._read("SELECT path, size, mtime_ns FROM files")
        found = {os.fsdecode(path): (size, mtime_ns) for path, size, mtime_ns in rows}
        self._paths.update(found)
        return found

    def record_of(self, path: str) -> Record | None:
        """Read what is in the bucket of one file; only after `done`."""
        if path not in self._paths:
            return None  # Without waiting for a transaction that is being written.
        if recent := self._recent.get(path):
            return recent
        rows = self._try_to_read(
            "SELECT path, size, mtime_ns, sha256, key, at FROM files WHERE path = ?", (os.fsencode(path),)
        )
        return next((Record(os.fsdecode(row[0]), *row[1:]) for row in rows), None)

    def record(self, records: Iterable[Record], counts: Mapping[str, int]) -> None:
        """Queue uploads, and in `counts` what this month has seen of each kind of request and of bytes."""
        month = time.strftime("%Y-%m", time.gmtime())
        statements: list[_Statement] = [
            (_ADD_USAGE, (month, what, amount)) for what, amount in counts.items() if amount
        ]
        for r in records:
            raw = os.fsencode(r.path)
            row = (raw, r.size, r.mtime_ns, r.sha256, r.key, r.at)
            statements.append(("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", row))
            self._recent[r.path] = r
            self._paths.add(r.path)
        self._queue(statements)

    def begin(self, upload: OpenUpload) -> None:
        """Note a multipart upload: before it is begun, and with its id before its first part is sent."""
        row = (os.fsencode(upload.path), upload.size, upload.sha256, upload.key)
        row_end = (upload.upload_id, upload.part_size, upload.at)
        self._queue([("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?)", row + row_end)])
        self.flush()

    def part(self, upload_id: str, number: int, etag: str) -> None:
        """Note a part that the bucket has."""
        self._queue([("INSERT OR REPLACE INTO parts VALUES (?, ?, ?)", (upload_id, number, etag))])
        self.flush()

    def end(self, upload: OpenUpload) -> None:
        """Forget a multipart upload that is complete or given up."""
        self._queue(
            [
                ("DELETE FROM parts WHERE upload_id = ?", (upload.upload_id,)),
                (
                    "DELETE FROM uploads WHERE path = ? AND upload_id = ?",
                    (os.fsencode(upload.path), upload.upload_id),
                ),
            ]
        )
        self.flush()

    def open_uploads(self) -> list[OpenUpload]:
        """Read the multipart uploads that are not complete."""
        rows = self._try_to_read("SELECT path, size, sha256, key, upload_id, part_size, at FROM uploads")
        return [OpenUpload(os.fsdecode(row[0]), *row[1:]) for row in rows]

    def parts(self, upload_id: str) -> dict[int, str]:
        """Read number -> entity tag of the parts that the bucket has."""
        return dict(self._try_to_read("SELECT number, etag FROM parts WHERE upload_id = ?", (upload_id,)))

    def stored(self) -> tuple[int, int]:
        """Count (objects, bytes) that lie in the bucket as far as this journal knows."""
        rows = self._read("SELECT count(*), coalesce(sum(size), 0) FROM (SELECT DISTINCT key, size FROM files)")
        return int(rows[0][0]), int(rows[0][1])

    def usage(self) -> dict[str, dict[str, int]]:
        """Read month -> what -> amount."""
        found: dict[str, dict[str, int]] = {}
        for month, what, amount in self._read("SELECT month, what, amount FROM usage ORDER BY month"):
            found.setdefault(month, {})[what] = amount
        return found

    @property
    def is_behind(self) -> bool:
        """Whether something is queued."""
        return bool(self._unwritten)

    def flush(self) -> bool:
        """Write what is queued, durably; True if nothing is left, else `problem` says why."""
        with self._connection_lock:
            with self._queue_lock:
                batch = list(self._unwritten)
            try:
                with self._connection:
                    for statement, values in batch:
                        self._connection.execute(statement, values)
            except sqlite3.Error as error:
                self.problem = str(error)
                return False
            with self._queue_lock:
                del self._unwritten[: len(batch)]
                if not self._unwritten:
                    self._recent.clear()
            self.problem = ""
            return True

    def _queue(self, statements: Iterable[_Statement]) -> None:
        with self._queue_lock:
            self._unwritten.extend(statements)

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._connection_lock:
            return self._connection.execute(query, values).fetchall()

    def _try_to_read(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Read what only spares work; a broken disk answers nothing."""
        try:
            return self._read(query, values)
        except sqlite3.Error as error:
            self.problem = str(error)
            return []

    def close(self) -> None:
        """Close the file, once no thread is at work in it: SQLite does not survive that."""
        self.flush()
        with self._connection_lock:
            self._connection.close()
