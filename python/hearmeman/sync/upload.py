"""Brings one file into the bucket: hash it, find its key, send it, and see that it did not change meanwhile."""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from hearmeman.sync.bucket import Bucket, TakenError
from hearmeman.sync.failures import FileChangedError
from hearmeman.sync.keys import object_key, with_content
from hearmeman.sync.tree import Seen, seen

IN_MEMORY = 8 * 1024**2
"""Files up to this size are read once, so that what is hashed is what is sent."""


@dataclass(frozen=True)
class Sent:
    """An upload that is done."""

    key: str
    """Where the object lies."""
    sha256: str
    """Of its content."""
    size: int
    """Bytes."""
    was_there: bool
    """Whether the bucket held it already, so nothing was sent."""


def upload(bucket: Bucket, prefix: str, root: Path, relative: str, expected: Seen) -> Sent:
    """Upload the file `relative` to `root`, which looked as `expected` a moment ago.

    Raises:
        FileChangedError: it is another file now, or was written to meanwhile.
        OSError: it cannot be read.
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: the bucket did not take it.
    """
    path = root / relative
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        # Also refuses a file reached through a folder that was swapped for a link.
        _unchanged(descriptor, expected)
        content = file.read(IN_MEMORY + 1) if expected.size <= IN_MEMORY else None
        if content is not None:
            sha256, md5 = hashlib.sha256(content).hexdigest(), ""
        else:
            sha256, md5 = _digests(descriptor)
        _unchanged(descriptor, expected)
        key = object_key(prefix, relative, expected.mtime_ns)
        for candidate in (key, with_content(key, sha256), with_content(key, sha256, 64)):
            there = bucket.head(candidate)
            if there is None:
                file.seek(0)
                try:
                    bucket.put(candidate, file if content is None else content, {"sha256": sha256}, md5)
                except TakenError:
                    there = bucket.head(candidate)
                else:
                    _unchanged(descriptor, expected)
                    return Sent(candidate, sha256, expected.size, False)
            if there is not None and there.holds(path, expected.size, sha256):
                return Sent(candidate, sha256, expected.size, True)
    raise AssertionError(f"{key}: an object named by its whole sha256 holds other content")


def _unchanged(descriptor: int, expected: Seen) -> None:
    if seen(os.fstat(descriptor)) != expected:
        raise FileChangedError


def _digests(descriptor: int) -> tuple[str, str]:
    """Hash a whole file: its sha256 in hex, its md5 as Content-MD5 has it."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    position = 0
    while block := os.pread(descriptor, 1024**2, position):
        sha256.update(block)
        md5.update(block)
        position += len(block)
    return sha256.hexdigest(), base64.b64encode(md5.digest()).decode()
