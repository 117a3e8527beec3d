"""What an engine has found in a recording, kept by the recording's content, so that a voice is studied once."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

Found = TypeVar("Found")

SIZE = 32
"""How many are kept; each holds some hundred kilobytes, on the GPU if there is one."""


class Conditionals(Generic[Found]):
    """What was found, by the hash of the clip and by the settings; what was not used for longest goes first."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._found: OrderedDict[tuple[Hashable, ...], Found] = OrderedDict()
        self.hits = 0

    def get(self, clip: Path, settings: tuple[Hashable, ...], study: Callable[[], Found]) -> Found:
        """What is known of the clip under these settings, or what `study` finds now. Raises: OSError without a clip."""
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
