"""Which bytes of a file are still missing, and which of them a connection is fetching."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MIB = 1024**2
SMALLEST = 4 * MIB
LARGEST = 64 * MIB
ENDLESS = 1 << 62
"""End of a file whose size no one states."""


@dataclass(eq=False)
class Part:
    """A range that one connection fetches; `end` may come nearer while it does."""

    pos: int
    """The next byte to arrive."""
    end: int
    """One past the last byte."""
    claimed: int = 0
    """Bytes before this one have arrived or are being written now: no one else may write them."""

    @property
    def left(self) -> int:
        """Bytes still to arrive."""
        return self.end - self.pos

    def claim(self, count: int) -> int:
        """Say that the next `count` bytes are about to be written; gives how many of them are still this range's."""
        count = max(0, min(count, self.left))
        self.claimed = self.pos + count
        return count


class Spans:
    """The bytes of one file. Not safe for threads: whoever shares it holds a lock."""

    def __init__(self, size: int, missing: Iterable[tuple[int, int]] | None = None) -> None:
        self.size = size
        self.free = [(0, size)] if missing is None and size else sorted(missing or ())
        self.active: list[Part] = []

    @property
    def missing(self) -> list[tuple[int, int]]:
        """Ranges that have not arrived, in order; what a restart must know."""
        return sorted([*self.free, *((part.pos, part.end) for part in self.active if part.left > 0)])

    @property
    def done(self) -> int:
        """Bytes that have arrived."""
        return self.size - sum(end - start for start, end in self.missing)

    @property
    def frontier(self) -> int:
        """All bytes before this one have arrived."""
        starts = [start for start, _ in self.free] + [part.pos for part in self.active if part.left > 0]
        return min(starts, default=self.size)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.free and not any(part.left > 0 for part in self.active)

    def take(self, connections: int, whole: bool = False) -> Part | None:
        """Give a range to a connection; None if there is nothing worth another one.

        Ranges get smaller towards the end, so that `connections` end together. `whole` gives all of the first gap.
        """
        if not self.free:
            return None if whole else self._split()
        total = sum(end - start for start, end in self.free)
        want = max(SMALLEST, min(LARGEST, total // (2 * max(1, connections))))
        start, end = self.free.pop(0)
        cut = end if whole or end - start <= want + SMALLEST else start + want
        if cut < end:
            self.free.insert(0, (cut, end))
        return self._begin(start, cut)

    def give_back(self, part: Part) -> None:
        """Take a range back from its connection, arrived or not."""
        self.active.remove(part)
        if part.left > 0:
            self.free = sorted([*self.free, (part.pos, part.end)])

    def resize(self, size: int) -> None:
        """Learn the size, which no one had stated before."""
        self.free = [(start, min(end, size)) for start, end in self.free if start < size]
        for part in self.active:
            part.end = min(part.end, size)
        self.size = size

    def only(self, part: Part) -> None:
        """Let one connection, which is at the first byte, fetch all of the file."""
        self.free, self.active = [], [part]
        part.pos, part.end = 0, self.size

    def restart(self) -> None:
        """Forget everything that arrived."""
        self.free = [(0, self.size)] if self.size else []
        self.active = []

    def take_over(self, part: Part) -> Part:
        """Give what is left of a range to another connection; who has it only ends what it is writing."""
        start = max(part.pos, part.claimed)
        end, part.end = part.end, start
        return self._begin(start, end)

    @property
    def splittable(self) -> bool:
        """Whether a range under way is long enough for two connections."""
        return any(part.left >= 2 * SMALLEST for part in self.active)

    def _split(self) -> Part | None:
        longest = max(self.active, key=lambda part: part.left, default=None)
        if longest is None or longest.left < 2 * SMALLEST:
            return None
        middle = max(longest.pos + longest.left // 2, longest.end - LARGEST)
        end, longest.end = longest.end, middle
        return self._begin(middle, end)

    def _begin(self, start: int, end: int) -> Part:
        part = Part(start, end)
        self.active.append(part)
        return part
