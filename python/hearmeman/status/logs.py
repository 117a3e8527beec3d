"""The processes' log files, merged by time; what each line holds is text and nothing else."""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hearmeman.terminal import plain

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)\d*Z (.*)", re.DOTALL)
_OLD = re.compile(r"\.(\d+)$")
TAIL_BYTES = 256 * 1024
"""What is read of the end of a log file where its beginning is not wanted."""


@dataclass(frozen=True)
class Line:
    """One line of a process's log."""

    at: float
    """When it was written, Unix seconds."""
    name: str
    """The process."""
    text: str
    """What it says, without colours and control characters."""


def names(folder: Path) -> list[str]:
    """Name the processes that have a log there."""
    return sorted(path.stem for path in folder.glob("*.log"))


def parse(name: str, lines: Iterable[str], before: float) -> Iterator[Line]:
    """Read lines of one file; one without a time, of an older image, has the time of the line before it (or `before`)."""
    at, last = before, 0.0
    for text in lines:
        found = _STAMP.match(text)
        if found:
            # Some lines have whole seconds: one file's order is never changed.
            at, text = max(last, datetime.fromisoformat(f"{found[1]}Z").timestamp()), found[2]
            last = at
        if text.strip():
            yield Line(at, name, plain(text.rstrip()))


def read(folder: Path, wanted: Iterable[str], since: float = 0.0, most: int | None = None) -> list[Line]:
    """Read the logs of the processes `wanted`, oldest line first: those after `since`, the last `most` of them."""
    found = [_lines(folder, name, since, most) for name in wanted]
    merged = list(heapq.merge(*found, key=lambda line: line.at))
    return merged if most is None else merged[-most:] if most else []


def _lines(folder: Path, name: str, since: float, most: int | None) -> list[Line]:
    found: list[Line] = []
    for path in [folder / f"{name}.log", *_older(folder, name)]:
        try:
            info = path.stat()
        except OSError:
            continue
        if info.st_mtime < since:
            break
        whole = most is None
        found = [*parse(name, tail(path, None if whole else TAIL_BYTES), 0.0), *found]
        if not whole or (since and found and found[0].at < since):
            break
    kept = [line for line in found if line.at >= since]
    return kept if most is None else kept[-most:] if most else []


def _older(folder: Path, name: str) -> list[Path]:
    there = [path for path in folder.glob(f"{name}.log.*") if _OLD.search(path.name)]
    return sorted(there, key=lambda path: int(path.suffix[1:]))


def tail(path: Path, most_bytes: int | None) -> list[str]:
    """Read the whole lines of a file's end."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            cut = most_bytes is not None and size > most_bytes
            if most_bytes is not None and cut:
                file.seek(size - most_bytes)
            data = file.read()
    except OSError:
        return []
    lines = data.decode("utf-8", "replace").split("\n")
    # The first may be half a line; the last is what is being written now, or nothing.
    return lines[1 if cut else 0 : -1]


class Follower:
    """Reads on where it stopped, over rotations."""

    def __init__(self, folder: Path, wanted: Iterable[str] = (), most_bytes: int | None = None) -> None:
        """Start at the end of what is there; without `wanted` every log, also one that begins later.

        With `most_bytes` start so far before each file's end, and whenever more than that has come, read only the last of it.
        """
        self._folder, self._wanted, self._most_bytes = folder, tuple(wanted), most_bytes
        self._places: dict[str, tuple[int, int, float]] = {}
        for name in self._names():
            info = self._stat(name)
            if info:
                self._places[name] = (info.st_ino, info.st_size if most_bytes is None else 0, 0.0)

    def _names(self) -> Iterable[str]:
        return self._wanted or names(self._folder)

    def _stat(self, name: str) -> os.stat_result | None:
        try:
            return (self._folder / f"{name}.log").stat()
        except OSError:
            return None

    def look(self) -> list[Line]:
        """Give the lines that came since the last look."""
        found: list[list[Line]] = []
        for name in self._names():
            info = self._stat(name)
            if info is None:
                continue
            inode, place, before = self._places.get(name, (info.st_ino, 0, 0.0))
            if (inode, place) == (info.st_ino, info.st_size):
                continue
            lines: list[Line] = []
            if inode != info.st_ino:
                for path in _older(self._folder, name)[:1]:
                    lines += parse(name, self._rest(path, place)[0], before)
                place = 0
            texts, place = self._rest(self._folder / f"{name}.log", place)
            lines += parse(name, texts, lines[-1].at if lines else before)
            self._places[name] = (info.st_ino, place, lines[-1].at if lines else before)
            found.append(lines)
        return list(heapq.merge(*found, key=lambda line: line.at))

    def _rest(self, path: Path, place: int) -> tuple[list[str], int]:
        try:
            with path.open("rb") as file:
                if self._most_bytes is not None:
                    far = os.fstat(file.fileno()).st_size - self._most_bytes
                    if far > place:
                        # A line that was begun before is left out.
                        file.seek(far)
                        place = far + len(file.readline())
                file.seek(place)
                data = file.read()
        except OSError:
            return [], place
        whole = data.rfind(b"\n") + 1
        return data[:whole].decode("utf-8", "replace").split("\n")[:-1], place + whole
