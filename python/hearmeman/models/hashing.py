"""Hashes a file while it arrives: in order, close behind the first byte that is missing."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

BLOCK = 1024**2
"""Bytes that are hashed at a time."""


@dataclass(frozen=True)
class Front:
    """How far a file is."""

    generation: int
    """Counts how often it was begun again from its first byte."""
    position: int
    """All bytes before this one are there."""
    complete: bool
    """Whether no byte is missing."""


def follow(descriptor: int, look: Callable[[], Front | None], more: threading.Event) -> str | None:
    """Give the sha256 of the whole file once it is complete; None when `look` says that it never will be.

    `more` is set whenever `look` may have something new to say.

    Raises:
        OSError: the file cannot be read, or became shorter.
    """
    hasher, position, generation = hashlib.sha256(), 0, -1
    buffer = memoryview(bytearray(BLOCK))
    while True:
        more.wait(0.5)
        more.clear()
        front = look()
        if front is None:
            return None
        if generation != front.generation:
            hasher, position, generation = hashlib.sha256(), 0, front.generation
        if front.position - position < BLOCK and not front.complete:
            continue
        while position < front.position:
            count = os.preadv(descriptor, [buffer[: front.position - position]], position)
            if count <= 0:
                raise OSError(errno.EIO, "a staged file became shorter")
            hasher.update(buffer[:count])
            position += count
        if front.complete:
            return hasher.hexdigest()
