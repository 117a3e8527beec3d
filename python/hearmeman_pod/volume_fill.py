"""Models from their sources into a network volume by RunPod's S3 API, hashed on the way; nothing lies on this machine's disk."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import urllib3

from hearmeman.models.catalogue import File
from hearmeman.models.errors import FetchError, TransientError
from hearmeman.models.remote import Remote, check_offer
from hearmeman.models.sources import Sources
from hearmeman.models.spans import ENDLESS
from hearmeman_pod.errors import PodError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FOLDER = "ComfyUI/models"
"""Where pods and workers look for models, below the volume's mount."""
PART_BYTES = 64 * 1024**2
TRIES = 8
_BLOCK = 1024**2


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    key: str
    """Its path on the volume."""
    state: str
    """present, filled or failed."""
    size: int = 0
    """Bytes."""
    verified: str = ""
    """What it was compared with: sha256, git, size or nothing."""
    why: str = ""
    """Why it failed."""


@dataclass(frozen=True)
class Filler:
    """What is needed to fill one volume."""

    s3: S3Client
    """RunPod's S3 API in the volume's data centre."""
    bucket: str
    """The volume's id."""
    sources: Sources
    """Where the models come from."""
    say: Callable[[str], None]
    sleep: Callable[[float], None] = time.sleep

    def fill(self, file: File) -> Outcome:
        """Bring one file, or find it there; it appears on the volume only when it is whole and verified."""
        from botocore.exceptions import BotoCoreError, ClientError

        key = f"{FOLDER}/{file.to}"
        try:
            if file.size is not None and self._size(key) == file.size:
                return Outcome(key, "present", file.size, "size")
            remote = self._asked(lambda: self.sources.resolve(file))
            check_offer(file, remote)
            if file.unnamed and remote.name:
                key = str(PurePosixPath(key).parent / PurePosixPath(remote.name).name)
            size = file.size if file.size is not None else remote.size
            if size is not None and self._size(key) == size:
                return Outcome(key, "present", size, "size")
            return self._send(key, file, remote, size)
        except (FetchError, TransientError, PodError) as error:
            return Outcome(key, "failed", why=str(error))
        except (BotoCoreError, ClientError) as error:
            return Outcome(key, "failed", why=f"RunPod's S3 API: {error}")

    def _size(self, key: str) -> int | None:
        from botocore.exceptions import ClientError

        try:
            return int(self.s3.head_object(Bucket=self.bucket, Key=key)["ContentLength"])
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise

    def _asked(self, question: Callable[[], Remote]) -> Remote:
        for number in range(1, TRIES + 1):
            try:
                return question()
            except TransientError:
                if number == TRIES:
                    raise
                self.sleep(min(2.0**number, 60.0))
        raise AssertionError("unreachable")

    def _send(self, key: str, file: File, remote: Remote, size: int | None) -> Outcome:
        self._sweep(key)
        upload = self.s3.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]
        name: Any = {"Bucket": self.bucket, "Key": key, "UploadId": upload}
        try:
            check = _Check(file, remote, size)
            parts: list[Any] = []
            for content in _parts(self._bytes(file, remote), check):
                answer = self.s3.upload_part(**name, PartNumber=len(parts) + 1, Body=content)
                parts.append({"ETag": answer["ETag"], "PartNumber": len(parts) + 1})
                self.say(f"{key}: {check.size / 1e9:.2f} GB" + (f" of {size / 1e9:.2f}" if size else ""))
            verified = check.verdict()
            self.s3.complete_multipart_upload(**name, MultipartUpload={"Parts": parts})
        except BaseException:
            # What is left of it would fill the volume, and show nowhere.
            self.s3.abort_multipart_upload(**name)
            raise
        if (there := self._size(key)) != check.size:
            raise PodError(f"the volume holds {there} bytes of {key}, and {check.size} were sent: fill it again")
        return Outcome(key, "filled", check.size, verified)

    def _sweep(self, key: str) -> None:
        """End what an earlier run that was killed left of this file."""
        found = self.s3.list_multipart_uploads(Bucket=self.bucket, Prefix=key)
        for left in found.get("Uploads", []):
            if left["Key"] == key:
                self.s3.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=left["UploadId"])

    def _bytes(self, file: File, remote: Remote) -> Iterator[bytes]:
        """Read the file from its source; a connection that breaks is taken up where it broke."""
        at, failures, etag = 0, 0, ""
        while True:
            try:
                answer = self.sources.http.open(remote, (at, ENDLESS), file.to, etag)
                if answer.start != at:
                    raise PodError(f"{file.to}: the source restarted at {answer.start} instead of {at}: fill it again")
                etag, total = answer.etag, answer.total
                try:
                    for block in answer.response.stream(_BLOCK, decode_content=False):
                        at, failures = at + len(block), 0
                        yield block
                finally:
                    answer.response.close()
                if total is None or at >= total:
                    return
                raise TransientError(f"{file.to}: the source sent {at} bytes of {total}")
            except (TransientError, urllib3.exceptions.HTTPError, OSError) as error:
                failures += 1
                if failures == TRIES:
                    raise PodError(f"{file.to}: {error}") from error
                self.sleep(min(2.0**failures, 60.0))
                remote = self._asked(lambda: self.sources.resolve(file))


class _Check:
    """Hashes what passes and compares it with what is known of the file."""

    def __init__(self, file: File, remote: Remote, size: int | None) -> None:
        self._file, self._wanted = file, size
        self._sha256 = file.sha256 or remote.sha256
        self._blob = file.blob or remote.blob
        self._hash = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % (size or 0), usedforsecurity=False)
        self.size = 0

    def add(self, block: bytes) -> None:
        self.size += len(block)
        self._hash.update(block)
        if self._blob:
            self._git.update(block)

    def verdict(self) -> str:
        """Say what the file was compared with.

        Raises:
            PodError: it is another file.
        """
        if self._wanted is not None and self.size != self._wanted:
            raise PodError(f"{self._file.to}: {self.size} bytes came, and it has {self._wanted}: it was not kept")
        if self._sha256:
            if self._hash.hexdigest() != self._sha256:
                raise PodError(f"{self._file.to}: the content is not what was expected (sha256): it was not kept")
            return "sha256"
        if self._blob and self._wanted is not None:
            if self._git.hexdigest() != self._blob:
                raise PodError(f"{self._file.to}: the content is not what was expected (git): it was not kept")
            return "git"
        return "size" if self._wanted is not None else "nothing"


def _parts(blocks: Iterator[bytes], check: _Check) -> Iterator[bytes]:
    held = bytearray()
    empty = True
    for block in blocks:
        check.add(block)
        held += block
        while len(held) >= PART_BYTES:
            yield bytes(held[:PART_BYTES])
            del held[:PART_BYTES]
            empty = False
    if held or empty:
        yield bytes(held)
