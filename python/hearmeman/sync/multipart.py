"""Sends a large file in equal parts, several at once, and goes on where an earlier attempt stopped.

boto3's own s3transfer sends parts as well, and keeps nothing: cut at 9 of 10 GB it sends 10 GB again, this 1 GB. It knows no
`Content-MD5`, by which R2 refuses a part that was written to while it was sent, and no condition at the end.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import IO, cast

from hearmeman.sync.bucket import Bucket, UploadLostError
from hearmeman.sync.journal import Journal, OpenUpload

MULTIPART_ABOVE = 100 * 1024**2
PART_SIZE = 50 * 1024**2
MOST_PARTS = 10_000
BLOCK = 1024**2
CLOCKS_DIFFER = 600
"""Seconds by which the bucket's clock may be behind this one."""


class FileChangedError(Exception):
    """The file was written to while it was read; it is to be sent when it is still again."""


def part_size(size: int) -> int:
    """Give the bytes of each part but the last of a file of `size` bytes: 50 MiB, more where 10,000 do not suffice."""
    whole = -(-size // MOST_PARTS)
    return max(PART_SIZE, -(-whole // BLOCK) * BLOCK)


@dataclass(frozen=True)
class Content:
    """A file opened, and what it holds."""

    descriptor: int
    """Open for reading."""
    size: int
    """Bytes."""
    sha256: str
    """Of all of it, in hex."""
    md5: Sequence[str]
    """Of each part, as Content-MD5 has it; one if it is sent in one piece."""
    held: bytes | None = None
    """The bytes themselves, of a small file."""

    @property
    def is_large(self) -> bool:
        """Whether it is sent in parts."""
        return self.size > MULTIPART_ABOVE


@dataclass(frozen=True)
class Parts:
    """What sends parts: shared by all files, so that the connections stay few."""

    bucket: Bucket
    """Where they go."""
    workers: ThreadPoolExecutor
    """Threads that each send one part."""
    journal: Journal | None
    """Where the progress is kept; None: an upload that fails is given up."""

    def send(
        self,
        path: str,
        key: str,
        content: Content,
        metadata: Mapping[str, str],
        check: Callable[[], bool],
        progress: Callable[[int], None],
    ) -> None:
        """Send `content` to `key`.

        Just before the end `check` raises if the file has changed or the key is taken; its answer is whether the
        completion is to be conditional.

        Raises:
            UploadLostError: the bucket forgot the upload; it is to be begun again.
            hearmeman.sync.bucket.TakenError: an object lies at `key`.
        """
        upload, etags = self._open(path, key, content, metadata)
        try:
            self._send_missing(upload, content, etags, progress)
            conditional = check()
            self.bucket.complete(key, upload.upload_id, [etags[n] for n in sorted(etags)], conditional)
        except UploadLostError:
            self._forget(upload)
            raise
        except BaseException:
            if self.journal is None:
                self.bucket.abort(key, upload.upload_id)
            raise
        self._forget(upload)

    def give_up(self, upload: OpenUpload) -> None:
        """Abort an upload that will never be complete."""
        if upload.upload_id:
            self.bucket.abort(upload.key, upload.upload_id)
        else:  # A kill came before the answer with the id. Another pod's upload that is hit begins again.
            self.bucket.abort_all(upload.key, upload.at - CLOCKS_DIFFER)
        self._forget(upload)

    def _open(
        self, path: str, key: str, content: Content, metadata: Mapping[str, str]
    ) -> tuple[OpenUpload, dict[int, str]]:
        size = part_size(content.size)
        for old in self.journal.open_uploads() if self.journal else []:
            if old.path == path and self.journal is not None:
                if old.upload_id and (old.key, old.sha256, old.part_size) == (key, content.sha256, size):
                    return old, self.journal.parts(old.upload_id)
                self.give_up(old)
        begun = OpenUpload(path, content.size, content.sha256, key, "", size, time.time())
        if self.journal is not None:
            self.journal.begin(begun)  # Without its id first: a kill before the answer leaves a note of what to abort.
        begun = replace(begun, upload_id=self.bucket.begin(key, metadata))
        if self.journal is not None:
            self.journal.begin(begun)
        return begun, {}

    def _send_missing(
        self, upload: OpenUpload, content: Content, etags: dict[int, str], progress: Callable[[int], None]
    ) -> None:
        def send(number: int) -> None:
            start = (number - 1) * upload.part_size
            size, pace = min(upload.part_size, content.size - start), self.bucket.bandwidth.wait
            piece = Slice(content.descriptor, start, size, progress, pace)
            body = cast("IO[bytes]", piece)
            etag = self.bucket.put_part(upload.key, upload.upload_id, number, body, content.md5[number - 1])
            if self.journal is not None:
                self.journal.part(upload.upload_id, number, etag)
            etags[number] = etag

        for number in etags:
            progress(min(upload.part_size, content.size - (number - 1) * upload.part_size))
        waiting = [self.workers.submit(send, n) for n in range(1, len(content.md5) + 1) if n not in etags]
        wait(waiting, return_when=FIRST_EXCEPTION)
        for one in waiting:
            one.cancel()
        wait(waiting)  # The file must stay open for those that are under way.
        for one in waiting:
            if not one.cancelled():
                one.result()

    def _forget(self, upload: OpenUpload) -> None:
        if self.journal is not None:
            self.journal.end(upload)


class Slice(io.RawIOBase):
    """`size` bytes of a file from `start` on, as a file of its own; the descriptor may be shared."""

    def __init__(
        self,
        descriptor: int,
        start: int,
        size: int,
        progress: Callable[[int], None],
        pace: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Stand at the slice's beginning; `progress` is given each move, backwards too, `pace` waits before each read."""
        self._descriptor, self._start, self.size, self._at = descriptor, start, size, 0
        self._progress, self._pace = progress, pace

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Give the position in the slice."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move in the slice."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        before, self._at = self._at, min(max(base + offset, 0), self.size)
        self._progress(self._at - before)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Read up to `size` bytes.

        Raises:
            FileChangedError: the file ends within the slice.
        """
        left = self.size - self._at
        wanted = left if size is None or size < 0 else min(size, left)
        data = os.pread(self._descriptor, wanted, self._start + self._at)
        if not data and wanted:
            raise FileChangedError("it has become shorter")
        self._pace(len(data))
        self._at += len(data)
        self._progress(len(data))
        return data
