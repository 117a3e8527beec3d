"""What an engine has learned from a recording, cached by the recording's content, so that each voice is studied once."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

Found = TypeVar("Found")

SIZE = 32
"""How many are kept; each takes a few hundred kilobytes, on the GPU if there is one."""


class Conditionals(Generic[Found]):
    """Results by the clip's hash and the settings; the least recently used goes first."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._found: OrderedDict[tuple[Hashable, ...], Found] = OrderedDict()
        self.hits = 0

    def get(self, clip: Path, settings: tuple[Hashable, ...], study: Callable[[], Found]) -> Found:
        """What is cached for the clip with these settings, or what `study` finds now. Raises: OSError without a clip."""
        with clip.open("rb") as file:
            key = (hashlib.file_digest(file, "sha256").digest(), *settings)
        if key in self._found:
            self.hits += 1
            self._found.move_to_end(key)
            return self._found[key]
        found = study()
        self._found[key] = found
        while len(self._found) > self._size:
            self._found.popitem(last=False)
        return found

    def clear(self) -> None:
        self._found.clear()
