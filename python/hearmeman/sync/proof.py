"""Whether an object holds exactly what a file holds, as far as the bucket's own answer proves it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from hearmeman.sync.bucket import Stored
from hearmeman.sync.multipart import BLOCK, MULTIPART_ABOVE, part_size

_COMPOSITE = re.compile(r"([0-9a-f]{32})-(\d+)")


@dataclass(frozen=True)
class Digests:
    """What a file's content comes to."""

    size: int
    """Bytes that were read."""
    sha256: str
    """In hex; what the upload put into the object's metadata."""
    etag: str
    """What the bucket computes of the same content sent as the sync sends it: its md5, or that of its parts' md5s."""


def digests(descriptor: int, size: int, progress: Callable[[int], None] = lambda read: None) -> Digests:
    """Read up to `size` bytes of an open file once; `progress` is called with the bytes of each read.

    Raises:
        OSError: it cannot be read.
    """
    step = part_size(size) if size > MULTIPART_ABOVE else max(size, 1)
    sha256, md5, parts, position = hashlib.sha256(), hashlib.md5(usedforsecurity=False), [], 0
    while position < size:
        block = os.pread(descriptor, min(BLOCK, step - position % step, size - position), position)
        if not block:
            break
        sha256.update(block)
        md5.update(block)
        position += len(block)
        progress(len(block))
        if position % step == 0:
            parts.append(md5.digest())
            md5 = hashlib.md5(usedforsecurity=False)
    if position % step or not parts:
        parts.append(md5.digest())
    if size <= MULTIPART_ABOVE:
        return Digests(position, sha256.hexdigest(), parts[0].hex())
    whole = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return Digests(position, sha256.hexdigest(), f"{whole}-{len(parts)}")


def difference(stored: Stored, local: Digests) -> str:
    """Say why `stored` is not proven to be `local`; empty if it is.

    The entity tag is the bucket's own word for what it holds. One of another form (sent in other parts, or encrypted)
    says nothing, and then the sha256 that the sender noted decides.
    """
    if stored.size != local.size:
        return f"the object has {stored.size} bytes, the file {local.size}"
    if stored.sha256 and stored.sha256 != local.sha256:
        return "the object has other content (sha256)"
    if _alike(stored.etag, local.etag):
        return "" if stored.etag == local.etag else "the object has other content (entity tag)"
    return "" if stored.sha256 else "the object carries no hash that can be compared"


def _alike(one: str, other: str) -> bool:
    """Tell whether two entity tags are made in the same way."""
    left, right = _COMPOSITE.fullmatch(one), _COMPOSITE.fullmatch(other)
    if left and right:
        return left[2] == right[2]
    return not left and not right and len(one) == len(other)
