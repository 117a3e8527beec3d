"""Decides what to upload and when; pure: it is told what was seen and what time it is, and reads nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hearmeman.sync.tree import Seen

SHORTEST_SETTLE = 0.3
LONGEST_SETTLE = 10.0
BLIND_FACTOR = 3.0
"""How much longer a file must be still where nobody can tell whether it is open for writing."""
OPEN_PATIENCE = 300.0
"""Seconds after which a file that is still but never closed is sent anyway."""


def settle_seconds(size: int, known_closed: bool) -> float:
    """Give the seconds that a file of `size` bytes must be still before it counts as finished."""
    seconds = SHORTEST_SETTLE + size / 1e9
    return min(seconds if known_closed else seconds * BLIND_FACTOR, LONGEST_SETTLE)


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


@dataclass
class Backlog:
    """All files that are not in the bucket yet."""

    done: dict[str, tuple[int, int]]
    """Path -> (size, mtime_ns) of what is in the bucket."""
    waiting: dict[str, Waiting] = field(default_factory=dict)
    """Path -> what is known of a file that is not."""

    def observe(self, path: str, seen: Seen | None, now: float) -> None:
        """Take in what a file looks like at `now`; None means that it is gone."""
        entry = self.waiting.get(path)
        if seen is None:
            if entry is not None and not entry.busy:
                del self.waiting[path]
        elif entry is None:
            if self.done.get(path) != (seen.size, seen.mtime_ns):
                self.waiting[path] = Waiting(seen, now, now + settle_seconds(seen.size, True))
        elif entry.seen != seen:
            entry.seen, entry.still_since, entry.attempts = seen, now, 0
            entry.look_at = now + settle_seconds(seen.size, True)
        elif not entry.busy and self.done.get(path) == (seen.size, seen.mtime_ns):
            del self.waiting[path]

    def to_look_at(self, now: float) -> list[str]:
        """Name the files whose state must be looked at now, oldest first."""
        found = [(e.seen.mtime_ns, path) for path, e in self.waiting.items() if not e.busy and e.look_at <= now]
        return [path for _, path in sorted(found)]

    def ready(self, path: str, is_open: bool | None, now: float) -> bool:
        """Tell whether a file just observed can be sent; if not, when to look again is noted."""
        entry = self.waiting[path]
        still = now - entry.still_since
        if is_open and still < OPEN_PATIENCE:
            entry.look_at = now + min(max(SHORTEST_SETTLE, still / 4), 5.0)
            return False
        needed = settle_seconds(entry.seen.size, is_open is False)
        if still < needed:
            entry.look_at = entry.still_since + needed
            return False
        return True

    def next_look(self) -> float | None:
        """Give the clock at which something must be looked at; None if nothing waits for time."""
        return min((e.look_at for e in self.waiting.values() if not e.busy), default=None)

    def started(self, path: str) -> Seen:
        """Note that an upload begins."""
        self.waiting[path].busy = True
        return self.waiting[path].seen

    def succeeded(self, path: str, sent: Seen, now: float) -> None:
        """Note that the file as it was in `sent` is in the bucket; what changed meanwhile waits on."""
        entry = self.waiting[path]
        entry.busy = False
        self.done[path] = (sent.size, sent.mtime_ns)
        if (entry.seen.size, entry.seen.mtime_ns) == self.done[path]:
            del self.waiting[path]
        else:
            entry.look_at = now

    def failed(self, path: str, again_at: float) -> int:
        """Note a failed upload; the answer is how many there were."""
        entry = self.waiting[path]
        entry.busy = False
        entry.attempts += 1
        entry.look_at = again_at
        return entry.attempts

    def left(self) -> Mapping[str, Waiting]:
        """Give what is not in the bucket."""
        return self.waiting
