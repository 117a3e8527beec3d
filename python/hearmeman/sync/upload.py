"""Brings one file into the bucket: hash it, find its key, send it, and see that it did not change meanwhile."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from hearmeman.sync.bucket import AllKeysTakenError, Bucket, TakenError
from hearmeman.sync.journal import Journal
from hearmeman.sync.keys import object_key, with_content
from hearmeman.sync.multipart import BLOCK, MULTIPART_ABOVE, Content, FileChangedError, Parts, Slice, part_size
from hearmeman.sync.provenance import METADATA, Provenance, key_of
from hearmeman.sync.tree import Seen, seen

IN_MEMORY = 8 * 1024**2
"""Files up to this size are read once, so that what is hashed is what is sent."""
PARTS_AT_ONCE = 8


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


def _no_prompt(relative: str, mtime_ns: int) -> str:
    return ""


def _no_record(prompt_id: str) -> Provenance | None:
    return None


@dataclass(frozen=True)
class Uploader:
    """What every upload of one folder has in common; safe from any thread."""

    bucket: Bucket
    """Where the files go."""
    prefix: str
    """First part of every key."""
    root: Path
    """The folder, without links in its path."""
    journal: Journal | None = None
    """Where half-sent files are kept; None: they are given up."""
    prompt_of: Callable[[str, int], str] = _no_prompt
    """Gives the id of the ComfyUI prompt that made a file, changed then, or nothing."""
    record_of: Callable[[str], Provenance | None] = _no_record
    """Gives the record of how a prompt makes its files, if it is known."""
    stored: set[str] = field(default_factory=set)
    """Records that are in the bucket."""
    part_workers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="part")
    )
    """Threads that send parts of large files."""

    @property
    def parts(self) -> Parts:
        """What sends large files."""
        return Parts(self.bucket, self.part_workers, self.journal)

    def upload(
        self,
        relative: str,
        expected: Seen,
        progress: Callable[[int], None] = lambda sent: None,
        maybe_there: bool = False,
    ) -> Sent:
        """Upload one file, which looked as `expected` a moment ago.

        `progress` is given the bytes that were sent, and 0 for each block that was only read; what it raises ends it.

        With `maybe_there` its key is looked up before it is read: another pod may have sent this very file.

        Raises:
            FileChangedError: it is another file now, or was written to meanwhile.
            AllKeysTakenError: objects of other content lie at every key that it could have.
            OSError: it cannot be read.
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: the bucket did not take it.
        """
        descriptor = os.open(self.root / relative, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            # Also refuses a file reached through a folder that was swapped for a link.
            _unchanged(descriptor, expected)
            if maybe_there and (sent := self._sent_before(relative, expected)):
                return sent
            content = _read(descriptor, expected.size, progress)
            _unchanged(descriptor, expected)
            before = self.journal.record_of(relative) if self.journal else None
            if before is not None and (before.size, before.sha256) == (content.size, content.sha256):
                return Sent(before.key, content.sha256, content.size, True)  # Touched, not changed.
            return self._place(relative, expected, content, progress)
        finally:
            os.close(descriptor)

    def _sent_before(self, relative: str, expected: Seen) -> Sent | None:
        """Find this file in the bucket by its size and time, which its sender noted; a time in whole seconds is too vague."""
        if expected.mtime_ns % 1_000_000_000 == 0:
            return None
        key = object_key(self.prefix, relative, expected.mtime_ns)
        there = self.bucket.head(key)
        if there is None or not there.sha256 or (there.size, there.mtime_ns) != (expected.size, expected.mtime_ns):
            return None
        return Sent(key, there.sha256, there.size, True)

    def _place(self, relative: str, expected: Seen, content: Content, progress: Callable[[int], None]) -> Sent:
        """Find the first key that is free or holds the same, and send what is not there."""
        # The time as rclone writes it, so that its copies have it too.
        seconds, nanoseconds = divmod(expected.mtime_ns, 1_000_000_000)
        metadata = {"sha256": content.sha256, "mtime": f"{seconds}.{nanoseconds:09}"}
        if prompt := self.prompt_of(relative, expected.mtime_ns):
            metadata["prompt-id"] = prompt
            if record := self.record_of(prompt):
                # First, so that no object names a record that is not there.
                self._store(record)
                metadata[METADATA] = record.sha256
        plain = object_key(self.prefix, relative, expected.mtime_ns)
        for key in (plain, with_content(plain, content.sha256), with_content(plain, content.sha256, 64)):
            there = None if self.bucket.is_free(key) and not content.is_large else self.bucket.head(key)
            if there is None or (content.is_large and there.claim == content.sha256):
                try:
                    self._send(relative, key, expected, content, metadata, progress)
                except TakenError:
                    there = self.bucket.head(key)
                else:
                    return Sent(key, content.sha256, content.size, False)
            if there is not None and there.holds(self.root / relative, content.size, content.sha256):
                return Sent(key, content.sha256, content.size, True)
        if there is None:
            # A token that may not read is not told what lies at a key; this one is named by the whole content.
            return Sent(key, content.sha256, content.size, True)
        raise AllKeysTakenError(key)

    def _store(self, record: Provenance) -> None:
        if record.sha256 not in self.stored:
            with contextlib.suppress(TakenError):  # The same content: its name is its hash.
                self.bucket.put(key_of(self.prefix, record.sha256), record.body, {"sha256": record.sha256})
            self.stored.add(record.sha256)

    def _send(
        self,
        relative: str,
        key: str,
        expected: Seen,
        content: Content,
        metadata: Mapping[str, str],
        progress: Callable[[int], None],
    ) -> None:
        pace = self.bucket.bandwidth.wait
        if content.held is not None:
            pace(content.size)
            self.bucket.put(key, content.held, metadata)
            if self.journal is not None:  # It pays where many files follow.
                self.bucket.try_condition(key, content.held, metadata)
            progress(content.size)
        elif not content.is_large:
            body = cast("IO[bytes]", Slice(content.descriptor, 0, content.size, progress, pace))
            self.bucket.put(key, body, metadata, content.md5[0])
        else:

            def check() -> bool:
                _unchanged(content.descriptor, expected)
                return self.bucket.reserve(key, content.sha256, self.prefix)

            self.parts.send(relative, key, content, metadata, check, progress)


def _unchanged(descriptor: int, expected: Seen) -> None:
    if seen(os.fstat(descriptor)) != expected:
        raise FileChangedError("it is another file now, or was written to")


def _read(descriptor: int, size: int, progress: Callable[[int], None]) -> Content:
    if size <= IN_MEMORY:
        blocks, position = [], 0
        while position < size and (block := os.pread(descriptor, size - position, position)):
            blocks.append(block)
            position += len(block)
        held = b"".join(blocks)
        return Content(descriptor, len(held), hashlib.sha256(held).hexdigest(), (), held)
    step = part_size(size) if size > MULTIPART_ABOVE else size
    sha256, md5, position, digests = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0, []
    while position < size and (block := os.pread(descriptor, min(BLOCK, step - position % step), position)):
        progress(0)
        sha256.update(block)
        md5.update(block)
        position += len(block)
        if position % step == 0 or position == size:
            digests.append(base64.b64encode(md5.digest()).decode())
            md5 = hashlib.md5(usedforsecurity=False)
    return Content(descriptor, position, sha256.hexdigest(), digests)
