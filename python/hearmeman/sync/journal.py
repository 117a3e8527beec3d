"""Remembers in SQLite what is in the bucket and what is half sent; losing it costs requests, never a file."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearmeman.log import log

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
CREATE TABLE IF NOT EXISTS attempts (
    path BLOB PRIMARY KEY, failures INTEGER NOT NULL, why TEXT NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage (
    month TEXT NOT NULL, what TEXT NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY (month, what)
) WITHOUT ROWID;
"""


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
    """The bucket's name for it."""
    part_size: int
    """Bytes of every part but the last."""
    at: float
    """Unix seconds when it was begun."""


def journal_file(state: Path, endpoint: str, bucket: str) -> Path:
    """Give the journal's place: one for each bucket, so that a new bucket is filled from the start."""
    return state / f"sync-{hashlib.sha256(f'{endpoint} {bucket}'.encode()).hexdigest()[:8]}.db"


class Journal:
    """One SQLite file, safe from any thread; what cannot be written yet is kept in memory and written later."""

    def __init__(self, path: Path, read_only: bool = False) -> None:
        """Open or make it; one that is damaged is put aside.

        Raises:
            sqlite3.OperationalError: it cannot be opened here.
        """
        self.path = path
        self.problem = ""
        self._lock = threading.Lock()
        self._unwritten: list[tuple[str, tuple[Any, ...]]] = []
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
        connection.executescript(_TABLES)
        return connection

    def done(self) -> dict[str, tuple[int, int]]:
        """Read path -> (size, mtime_ns) of every file that is in the bucket."""
        rows = self._read("SELECT path, size, mtime_ns FROM files")
        return {os.fsdecode(path): (size, mtime_ns) for path, size, mtime_ns in rows}

    def record_of(self, path: str) -> Record | None:
        """Read what is in the bucket of one file."""
        rows = self._read(
            "SELECT path, size, mtime_ns, sha256, key, at FROM files WHERE path = ?", (os.fsencode(path),)
        )
        return next((Record(os.fsdecode(row[0]), *row[1:]) for row in rows), None)

    def record(self, records: Iterable[Record], counts: Mapping[str, int] | None = None) -> None:
        """Note uploads, and in `counts` what this month has seen of each kind of request and of bytes."""
        month = time.strftime("%Y-%m", time.gmtime())
        statements: list[tuple[str, tuple[Any, ...]]] = []
        for r in records:
            raw = os.fsencode(r.path)
            row = (raw, r.size, r.mtime_ns, r.sha256, r.key, r.at)
            statements.append(("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", row))
            statements.append(("DELETE FROM attempts WHERE path = ?", (raw,)))
        add = "INSERT INTO usage VALUES (?, ?, ?) ON CONFLICT (month, what) DO UPDATE SET amount = amount + excluded.amount"
        statements += [(add, (month, what, amount)) for what, amount in (counts or {}).items()]
        self._write(statements)

    def failed(self, path: str, failures: int, why: str) -> None:
        """Note that an upload failed so many times in a row."""
        row = (os.fsencode(path), failures, why, time.time())
        self._write([("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?)", row)])

    def begin(self, upload: OpenUpload) -> None:
        """Note a multipart upload before its first part is sent."""
        row = (os.fsencode(upload.path), upload.size, upload.sha256, upload.key)
        row_end = (upload.upload_id, upload.part_size, upload.at)
        self._write([("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?)", row + row_end)])

    def part(self, upload_id: str, number: int, etag: str) -> None:
        """Note a part that the bucket has."""
        self._write([("INSERT OR REPLACE INTO parts VALUES (?, ?, ?)", (upload_id, number, etag))])

    def end(self, upload_id: str) -> None:
        """Forget a multipart upload that is complete or given up."""
        self._write(
            [
                ("DELETE FROM parts WHERE upload_id = ?", (upload_id,)),
                ("DELETE FROM uploads WHERE upload_id = ?", (upload_id,)),
            ]
        )

    def open_uploads(self) -> list[OpenUpload]:
        """Read the multipart uploads that are not complete."""
        rows = self._read("SELECT path, size, sha256, key, upload_id, part_size, at FROM uploads")
        return [OpenUpload(os.fsdecode(row[0]), *row[1:]) for row in rows]

    def parts(self, upload_id: str) -> dict[int, str]:
        """Read number -> entity tag of the parts that the bucket has."""
        return dict(self._read("SELECT number, etag FROM parts WHERE upload_id = ?", (upload_id,)))

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

    def flush(self) -> bool:
        """Write what could not be written; True if nothing is left."""
        self._write([])
        return not self._unwritten

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def _write(self, statements: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
        with self._lock:
            self._unwritten.extend(statements)
            if not self._unwritten:
                return
            try:
                with self._connection:
                    for statement, values in self._unwritten:
                        self._connection.execute(statement, values)
            except sqlite3.Error as error:
                self.problem = str(error)
            else:
                self._unwritten.clear()
                self.problem = ""

    def close(self) -> None:
        """Close the file."""
        self.flush()
        self._connection.close()
