"""The multipart upload of one file to a volume: several parts at once, and an earlier run's are not sent again.

Nothing is noted here of what was sent: the server's list of parts says it, each with its MD5, and a part whose MD5 is that
of the source's bytes need not be sent again.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hearmeman_pod.errors import PodError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART_BYTES = 32 * 1024**2
"""RunPod takes parts of up to 500 MB, and 10,000 of them."""
AT_ONCE = 4


class LostError(PodError):
    """The upload is no more, or nothing says whether its parts were put together: the file itself tells."""


@dataclass(frozen=True)
class Half:
    """An upload that is not complete."""

    key: str
    """The file's path on the volume."""
    id: str
    """The server's name for it."""
    parts: Mapping[int, tuple[int, str]]
    """Number -> (bytes, ETag)."""

    @property
    def bytes(self) -> int:
        """What it takes of the volume."""
        return sum(size for size, _ in self.parts.values())


def halves(s3: S3Client, bucket: str, prefix: str) -> Iterator[Half]:
    """The uploads below `prefix` that are not complete."""
    gone = s3.exceptions.NoSuchUpload
    with contextlib.suppress(gone):  # Some servers answer so where there is none.
        for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
            for one in page.get("Uploads", []):
                if not one["Key"].startswith(prefix):
                    continue
                with contextlib.suppress(gone):  # It was completed since the list was made.
                    yield Half(one["Key"], one["UploadId"], _parts(s3, bucket, one["Key"], one["UploadId"]))


def _parts(s3: S3Client, bucket: str, key: str, upload_id: str) -> dict[int, tuple[int, str]]:
    pages = s3.get_paginator("list_parts").paginate(Bucket=bucket, Key=key, UploadId=upload_id)
    return {part["PartNumber"]: (part["Size"], part["ETag"]) for page in pages for part in page.get("Parts", [])}


def sweep(s3: S3Client, bucket: str, left: Sequence[Half]) -> None:
    """End uploads, which show nowhere and fill the volume."""
    for half in left:
        with contextlib.suppress(s3.exceptions.NoSuchUpload):
            s3.abort_multipart_upload(Bucket=bucket, Key=half.key, UploadId=half.id)


def cut(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Give the same bytes in parts of `PART_BYTES`; the last is smaller, and the only one of an empty file is empty."""
    held = bytearray()
    empty = True
    for block in blocks:
        held += block
        while len(held) >= PART_BYTES:
            yield bytes(held[:PART_BYTES])
            del held[:PART_BYTES]
            empty = False
    if held or empty:
        yield bytes(held)


class Upload:
    """One file on its way. Parts are given in order; threads send them, which nobody waits for when the command ends."""

    def __init__(self, s3: S3Client, bucket: str, key: str) -> None:
        """Take up the unfinished upload of `key` that holds most, or begin one."""
        self._s3, self._bucket = s3, bucket
        found = max(
            (half for half in halves(s3, bucket, key) if half.key == key), key=lambda half: half.bytes, default=None
        )
        self._half = found or Half(key, s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"], {})
        self._name: Any = {"Bucket": bucket, "Key": key, "UploadId": self._half.id}
        self._tags: list[str | Future[str]] = []
        self._running: set[Future[str]] = set()
        self.kept = 0
        """Bytes that an earlier run has sent."""

    def add(self, content: bytes) -> None:
        """Send the next part, unless it is there; waits while `AT_ONCE` are on their way.

        Raises:
            LostError: the upload was ended or completed by another.
        """
        number = len(self._tags) + 1
        md5 = hashlib.md5(content, usedforsecurity=False)
        size, tag = self._half.parts.get(number, (0, ""))
        if (size, tag.strip('"')) == (len(content), md5.hexdigest()):
            self._tags.append(tag)
            self.kept += size
            return
        self._wait(AT_ONCE - 1)
        sent: Future[str] = Future()
        threading.Thread(target=self._put, args=(sent, number, content, md5.digest()), daemon=True).start()
        self._tags.append(sent)
        self._running.add(sent)

    def settle(self) -> None:
        """Wait until every part is there; raises as `add`."""
        self._wait(0)

    def complete(self) -> None:
        """Put the parts together.

        Raises:
            LostError: as its name says; whether the file is there must be looked at.
        """
        from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

        self.settle()
        tags = [tag.result() if isinstance(tag, Future) else tag for tag in self._tags]
        parts: Any = [{"ETag": tag, "PartNumber": number} for number, tag in enumerate(tags, 1)]
        try:
            with self._known():
                self._s3.complete_multipart_upload(**self._name, MultipartUpload={"Parts": parts})
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                raise
            raise LostError(f"RunPod's S3 API: {error}") from error
        except (ConnectionError, HTTPClientError) as error:
            raise LostError(f"RunPod's S3 API: {error}") from error

    def abort(self) -> None:
        """Remove what was sent."""
        sweep(self._s3, self._bucket, [self._half])

    def _wait(self, most: int) -> None:
        """Wait until at most `most` parts are on their way."""
        with self._known():
            while len(self._running) > most:
                done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
                for one in done:
                    one.result()

    def _put(self, sent: Future[str], number: int, content: bytes, md5: bytes) -> None:
        try:
            answer = self._s3.upload_part(
                **self._name, PartNumber=number, Body=content, ContentMD5=base64.b64encode(md5).decode()
            )
        except BaseException as error:
            sent.set_exception(error)
        else:
            sent.set_result(answer["ETag"])

    @contextlib.contextmanager
    def _known(self) -> Iterator[None]:
        try:
            yield
        except self._s3.exceptions.NoSuchUpload as error:
            raise LostError("another run has ended or completed this upload") from error
