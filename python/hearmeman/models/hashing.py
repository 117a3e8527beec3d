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

    attempt: int
    """Counts how often it was begun again from its first byte."""
    position: int
    """All bytes before this one are there."""
    complete: bool
    """Whether no byte is missing."""


def follow(
    descriptor: int, look: Callable[[], Front | None], more: threading.Event, moved: Callable[[], None]
) -> tuple[str, int] | None:
    """Give the sha256 of the whole file once it is complete, and of which attempt; None if `look` says it never will be.

    `more` is set whenever `look` may have something new to say; `moved` is called after each block.

    Raises:
        OSError: the file cannot be read, or became shorter.
    """
    hasher, position, attempt = hashlib.sha256(), 0, -1
    buffer = memoryview(bytearray(BLOCK))
    while True:
        more.wait(0.5)
        more.clear()
        front = look()
        if front is None:
            return None
        if attempt != front.attempt:
            hasher, position, attempt = hashlib.sha256(), 0, front.attempt
        if front.position - position < BLOCK and not front.complete:
            continue
        while position < front.position:
            count = os.preadv(descriptor, [buffer[: front.position - position]], position)
            if count <= 0:
                raise OSError(errno.EIO, "a staged file became shorter")
            hasher.update(buffer[:count])
            position += count
            moved()
        if front.complete:
            return hasher.hexdigest(), attempt
