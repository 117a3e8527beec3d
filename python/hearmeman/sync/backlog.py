"""Decides what to upload and when; pure: it is told what was seen and what time it is, and reads nothing itself."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hearmeman.sync.finished import Sign
from hearmeman.sync.tree import Seen

SHORTEST_SETTLE = 0.3
LONGEST_SETTLE = 10.0
BLIND_FACTOR = 3.0
"""How much longer a file must be still when there is no sign that it is finished."""
HALF_SETTLE = 5.0
"""How long a file must be still that is empty, or whose format says that its end is missing."""
COARSE_SETTLE = 2.2
"""How long a file must be still whose filesystem seems to tell times in whole seconds."""
OPEN_PATIENCE = 300.0
"""Seconds after which a file that is still but never closed is sent anyway."""


def settle_seconds(seen: Seen, sign: Sign = Sign.WHOLE) -> float:
    """Give the seconds that a file must be still before it counts as finished."""
    seconds = SHORTEST_SETTLE + seen.size / 1e9
    if sign is Sign.NONE:
        seconds *= BLIND_FACTOR
    if sign is Sign.HALF or seen.size == 0:
        seconds = max(seconds, HALF_SETTLE)
    if seen.mtime_ns % 1_000_000_000 == 0:
        seconds = max(seconds, COARSE_SETTLE)
    return min(seconds, LONGEST_SETTLE)


@dataclass(slots=True)
class Waiting:
    """A file that is not in the bucket as it is now."""

    seen: Seen
    """What it looked like last."""
    still_since: float
    """Clock at which it was first seen so."""
    look_at: float
    """Clock at which to look again."""
    attempts: int = 0
    """Uploads of it that failed since it changed."""
    busy: bool = False
    """Whether an upload of it is under way."""
    gone: bool = False
    """Whether it vanished while that was under way."""


class Backlog:
    """All files that are not in the bucket yet."""

    def __init__(self, done: dict[str, tuple[int, int]]) -> None:
        """Start from what is in the bucket: path -> (size, mtime_ns)."""
        self.done = done
        self.waiting: dict[str, Waiting] = {}
        self.bytes = 0
        # Entries may be out of date: what counts is the file's own look_at.
        self._timed: list[tuple[float, str]] = []
        self._due: list[tuple[int, str]] = []

    def observe(self, path: str, seen: Seen | None, now: float) -> None:
        """Take in what a file looks like at `now`; None means that it is gone."""
        entry = self.waiting.get(path)
        if seen is None:
            if entry is not None and entry.busy:
                entry.gone = True
            elif entry is not None:
                self._forget(path)
        elif entry is None:
            if self.done.get(path) != (seen.size, seen.mtime_ns):
                self.waiting[path] = Waiting(seen, now, 0)
                self.bytes += seen.size
                self._look_again(path, now + settle_seconds(seen))
        else:
            entry.gone = False
            if entry.seen != seen:
                self.bytes += seen.size - entry.seen.size
                entry.seen, entry.still_since, entry.attempts = seen, now, 0
                self._look_again(path, now + settle_seconds(seen))

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

    def ready(self, path: str, sign: Sign, now: float) -> bool:
        """Tell whether a file just observed can be sent; if not, it is named again when it may be."""
        entry = self.waiting[path]
        still = now - entry.still_since
        if sign is Sign.OPEN and still < OPEN_PATIENCE:
            self._look_again(path, now + min(max(SHORTEST_SETTLE, still / 4), 5.0))
            return False
        needed = settle_seconds(entry.seen, sign)
        if still < needed:
            self._look_again(path, entry.still_since + needed)
            return False
        return True

    def started(self, path: str) -> Seen:
        """Note that an upload begins."""
        self.waiting[path].busy = True
        return self.waiting[path].seen

    def succeeded(self, path: str, sent: Seen, now: float) -> None:
        """Note that the file as it was in `sent` is in the bucket; what changed meanwhile waits on."""
        entry = self.waiting[path]
        entry.busy = False
        self.done[path] = (sent.size, sent.mtime_ns)
        if entry.gone or (entry.seen.size, entry.seen.mtime_ns) == self.done[path]:
            self._forget(path)
        else:
            self._look_again(path, now)

    def failed(self, path: str, again_at: float) -> None:
        """Note that an upload came to nothing and is to be tried again."""
        entry = self.waiting[path]
        entry.busy = False
        if entry.gone:
            self._forget(path)
        else:
            entry.attempts += 1
            self._look_again(path, again_at)

    def left(self) -> Mapping[str, Waiting]:
        """Give what is not in the bucket."""
        return self.waiting

    def hurry(self, now: float, most_attempts: int) -> None:
        """Let what waits after so many failed attempts, or fewer, be tried now."""
        for path, entry in self.waiting.items():
            if not entry.busy and 0 < entry.attempts <= most_attempts:
                self._look_again(path, now)

    def _look_again(self, path: str, at: float) -> None:
        self.waiting[path].look_at = at
        heapq.heappush(self._timed, (at, path))

    def _forget(self, path: str) -> None:
        self.bytes -= self.waiting.pop(path).seen.size
