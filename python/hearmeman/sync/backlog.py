"""Decides what to upload and when; pure: it is given what was seen and what time it is, and reads nothing itself."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hearmeman.sync.failures import Failure
from hearmeman.sync.finished import Form, Writer, still_seconds
from hearmeman.sync.tree import Seen

SHORTEST_LOOK, LONGEST_LOOK = 0.3, 5.0
"""Seconds between two looks at a file whose writer is unknown: nobody reports when it goes on."""


@dataclass(slots=True)
class Waiting:
    """A file that is not in the bucket as it is now."""

    seen: Seen
    """What it looked like last."""
    still_since: float
    """Clock at which it was changed last, as far as is known."""
    look_at: float
    """Clock at which to look again."""
    writer: Writer = Writer.UNKNOWN
    """What the kernel reported of its writer."""
    attempts: int = 0
    """Uploads of it that failed since it changed."""
    failure: Failure | None = None
    """Why the last of them failed."""
    failed_at: float = 0.0
    """Clock of that."""
    failing_since: float = 0.0
    """Clock of the first failure in a row."""
    busy: bool = False
    """Whether an upload of it is under way."""
    gone: bool = False
    """Whether it vanished while that was under way."""
    dirty: bool = False
    """Whether it was written to while that was under way."""


class Backlog:
    """All files that are not in the bucket yet."""

    def __init__(self, done: dict[str, tuple[int, int]], unix: float | None = None) -> None:
        """Start from what is in the bucket: path -> (size, mtime_ns).

        `unix` is what the clock lacks to Unix seconds: with it a file that is found has been still since its own time.
        """
        self.done, self.unix = done, unix
        self.waiting: dict[str, Waiting] = {}
        self.bytes = 0
        self.stopping = False
        # Entries may be out of date: what counts is the file's own look_at.
        self._timed: list[tuple[float, str]] = []
        self._due: list[tuple[int, str]] = []

    def observe(self, path: str, seen: Seen | None, now: float) -> None:
        """Take in what a file looks like at `now`; None means that it is gone.

        One that has changed though nobody reported a write is written by another machine.
        """
        entry = self.waiting.get(path)
        if seen is None:
            self._gone(path)
        elif entry is None:
            if self.done.get(path) != (seen.size, seen.mtime_ns):
                self._take_in(path, seen, Writer.UNKNOWN, now)
        else:
            entry.gone = False
            if entry.seen != seen:
                self._changed(path, seen, Writer.UNKNOWN, now)

    def reported(self, path: str, seen: Seen | None, writer: Writer | None, now: float) -> None:
        """Take in news of a file, and what it looks like at `now`; without a writer only its attributes changed."""
        entry = self.waiting.get(path)
        if seen is None:
            self._gone(path)
        elif writer is None:
            if entry is None:
                self.observe(path, seen, now)
            else:
                same = entry.seen.inode == seen.inode
                self._changed(path, seen, entry.writer if same else Writer.UNKNOWN, now)
        elif entry is None:
            # Also where size and time are as they were: a clock may be too coarse to show a second write.
            self._take_in(path, seen, writer, now)
        else:
            entry.dirty |= entry.busy
            self._changed(path, seen, writer, now)

    def forget_writers(self) -> None:
        """Take in that news was lost: what was known of writers may be wrong."""
        for entry in self.waiting.values():
            entry.writer = Writer.UNKNOWN

    def _gone(self, path: str) -> None:
        entry = self.waiting.get(path)
        if entry is not None and entry.busy:
            entry.gone = True
        elif entry is not None:
            self._forget(path)

    def _take_in(self, path: str, seen: Seen, writer: Writer, now: float) -> None:
        self.done.pop(path, None)
        still_since = now
        if writer is Writer.UNKNOWN and self.unix is not None:
            still_since -= max(0.0, now + self.unix - seen.mtime_ns / 1e9)
        self.waiting[path] = Waiting(seen, still_since, 0, writer)
        self.bytes += seen.size
        self._look_again(path, still_since + self._needed(path, Form.WHOLE))

    def _changed(self, path: str, seen: Seen, writer: Writer, now: float) -> None:
        entry = self.waiting[path]
        entry.gone = False
        self.bytes += seen.size - entry.seen.size
        entry.seen, entry.writer, entry.still_since = seen, writer, now
        entry.attempts, entry.failure = 0, None
        self._look_again(path, now + self._needed(path, Form.WHOLE))

    def _needed(self, path: str, form: Form) -> float:
        entry = self.waiting[path]
        return still_seconds(entry.seen, entry.writer, form, self.stopping)

    def knows(self, path: str) -> bool:
        """Tell whether a file of this name was seen before."""
        return path in self.done or path in self.waiting

    def vanished(self, found: Iterable[str], now: float) -> None:
        """Take in that nothing but `found` is there."""
        for path in self.waiting.keys() - found:
            self.observe(path, None, now)

    def next_due(self, now: float) -> str | None:
        """Name a file that must be looked at now, the one changed last first; None if there is none.

        It is not named again before it is told what came of it: `observe`, `ready`, `started`.
        """
        while self._timed and self._timed[0][0] <= now:
            look_at, path = heapq.heappop(self._timed)
            entry = self.waiting.get(path)
            if entry is not None and not entry.busy and entry.look_at == look_at:
                heapq.heappush(self._due, (-entry.seen.mtime_ns, path))
        while self._due:
            newest, path = heapq.heappop(self._due)
            entry = self.waiting.get(path)
            if entry is not None and not entry.busy and -entry.seen.mtime_ns == newest and entry.look_at <= now:
                return path
        return None

    def put_back(self, path: str, now: float) -> None:
        """Let a file that `next_due` named be named again at once."""
        self._look_again(path, now)

    def next_look(self) -> float | None:
        """Give the clock at which something must be looked at; None if nothing waits for time."""
        if self._due:
            return 0.0
        return self._timed[0][0] if self._timed else None

    def ready(self, path: str, form: Form, now: float) -> bool:
        """Tell whether a file just observed can be sent; if not, it is named again when it may be."""
        entry = self.waiting[path]
        still = now - entry.still_since
        left = self._needed(path, form) - still
        if left <= 0:
            return True
        if entry.writer is Writer.UNKNOWN:
            left = min(left, max(SHORTEST_LOOK, min(still / 4, LONGEST_LOOK)))
        self._look_again(path, now + left)
        return False

    def started(self, path: str) -> Seen:
        """Note that an upload begins."""
        self.waiting[path].busy = True
        return self.waiting[path].seen

    def succeeded(self, path: str, sent: Seen, now: float) -> bool:
        """Note that the file as it was in `sent` is in the bucket; False if it was written to meanwhile and waits on."""
        entry = self.waiting[path]
        entry.busy = False
        entry.attempts, entry.failure = 0, None
        if entry.dirty and not entry.gone:
            entry.dirty = False
            self._look_again(path, now)
            return False
        self.done[path] = (sent.size, sent.mtime_ns)
        if entry.gone or (entry.seen.size, entry.seen.mtime_ns) == self.done[path]:
            self._forget(path)
        else:
            self._look_again(path, now)
        return True

    def failed(self, path: str, again_at: float, failure: Failure | None = None, now: float = 0.0) -> None:
        """Note that an upload came to nothing at `now` and is to be tried again; no failure: the file changed."""
        entry = self.waiting[path]
        entry.busy = False
        entry.dirty = False
        if entry.gone:
            self._forget(path)
        else:
            entry.attempts += 1
            if entry.failure is None:
                entry.failing_since = now
            entry.failure, entry.failed_at = failure, now
            self._look_again(path, again_at)

    def failing(self) -> dict[str, Waiting]:
        """Give the files whose last upload failed."""
        return {path: entry for path, entry in self.waiting.items() if entry.failure is not None}

    def left(self) -> Mapping[str, Waiting]:
        """Give what is not in the bucket."""
        return self.waiting

    def hurry(self, now: float, most_attempts: int) -> None:
        """Let what waits after so many failed attempts, or fewer, be tried now."""
        for path, entry in self.waiting.items():
            if not entry.busy and 0 < entry.attempts <= most_attempts:
                self._look_again(path, now)

    def stop(self, now: float) -> None:
        """Let everything be tried now: there is little time left, and the writers have ended."""
        self.stopping = True
        for path, entry in self.waiting.items():
            if not entry.busy:
                self._look_again(path, now)

    def _look_again(self, path: str, at: float) -> None:
        self.waiting[path].look_at = at
        heapq.heappush(self._timed, (at, path))

    def _forget(self, path: str) -> None:
        self.bytes -= self.waiting.pop(path).seen.size
