"""Remembers in SQLite what is durably in the bucket; losing it costs requests, never a file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hearmeman.log import log
from hearmeman.sync.upload import Sent

_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    key TEXT NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Record:
    """A file that is in the bucket."""

    path: str
    """Relative to the output folder."""
    mtime_ns: int
    """Its last change before it was sent."""
    sent: Sent
    """What lies in the bucket."""
    at: float
    """Unix seconds of the upload."""


class Journal:
    """The file `path`; what cannot be written yet is kept in memory and written later."""

    def __init__(self, path: Path) -> None:
        """Open or make it; one that is damaged is put aside."""
        self.path = path
        self.unwritten: list[Record] = []
        try:
            self.connection = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            log("sync.journal_damaged", file=path, kept=aside, why=error, means="every file is compared again")
            self.connection = self._open()

    def _open(self) -> sqlite3.Connection:
        # No WAL: its shared memory does not work on network filesystems. One thread alone uses the connection.
        connection = sqlite3.connect(self.path, timeout=10)
        connection.execute("PRAGMA journal_mode=TRUNCATE")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(_TABLES)
        return connection

    def done(self) -> dict[str, tuple[int, int]]:
        """Read path -> (size, mtime_ns) of every file that is in the bucket."""
        rows = self.connection.execute("SELECT path, size, mtime_ns FROM files")
        return {os.fsdecode(path): (size, mtime_ns) for path, size, mtime_ns in rows}

    def record(self, records: Iterable[Record]) -> None:
        """Note uploads durably.

        Raises:
            sqlite3.OperationalError: the disk is full or broken; they are kept and written with the next.
        """
        self.unwritten.extend(records)
        if not self.unwritten:
            return
        rows = [(os.fsencode(r.path), r.sent.size, r.mtime_ns, r.sent.sha256, r.sent.key, r.at) for r in self.unwritten]
        with self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)
        self.unwritten.clear()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()
