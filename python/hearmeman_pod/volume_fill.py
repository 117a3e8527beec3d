"""Models from their sources into a network volume by RunPod's S3 API, hashed on the way; nothing lies on this machine's disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import urllib3

from hearmeman import terminal
from hearmeman.models.catalogue import File
from hearmeman.models.errors import FetchError, TransientError
from hearmeman.models.remote import Remote, check_offer
from hearmeman.models.sources import Sources
from hearmeman.models.spans import ENDLESS
from hearmeman_pod import volume_upload
from hearmeman_pod.errors import PodError
from hearmeman_pod.say import Talk
from hearmeman_pod.volume_check import Check, Wanted, WrongContentError
from hearmeman_pod.volume_records import FOLDER, Records, There
from hearmeman_pod.volume_upload import LostError, Upload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

TRIES = 8
_BLOCK = 1024**2
_LOOKS, _LOOK_PAUSE = 10, 3.0
"""How long a file is looked for that another run may have brought; RunPod may take minutes to put a large one together."""
_LOOKS_AT_OURS = 200


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
    how: str = ""
    """When: sent (on its way now), record (on its way in an earlier run, or by a pod), read (on the volume now); empty: only
    its size is known."""
    kept: int = 0
    """Bytes of it that an earlier run had sent."""
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
    verify: bool = False
    """Read back what is there and has no record."""
    replace: bool = False
    """Replace another file of the same name, wherever it came from."""
    sleep: Callable[[float], None] = time.sleep

    @property
    def records(self) -> Records:
        """What is known of the files on the volume."""
        return Records(self.s3, self.bucket)

    def fill(self, file: File) -> Outcome:
        """Bring one file, or find it there; it appears on the volume only when it is whole and verified."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return self._fill(file)
        except (FetchError, TransientError, PodError) as error:
            return Outcome(f"{FOLDER}/{file.to}", "failed", why=str(error))
        except (BotoCoreError, ClientError) as error:
            return Outcome(f"{FOLDER}/{file.to}", "failed", why=f"RunPod's S3 API: {error}")

    def _fill(self, file: File) -> Outcome:
        remote = None
        wanted = Wanted(file.to, file.size, file.sha256, file.blob)
        if file.unnamed or file.size is None or not wanted.hashed:
            remote = self._located(file)
            to = (
                str(PurePosixPath(file.to).parent / PurePosixPath(remote.name).name)
                if file.unnamed and remote.name
                else file.to
            )
            size = file.size if file.size is not None else remote.size
            wanted = Wanted(to, size, file.sha256 or remote.sha256, file.blob or remote.blob)
        there = self.records.look(wanted.to)
        found = self._judged(wanted, there) if there else None
        return found or self._send(file, remote or self._located(file), wanted, there)

    def _judged(self, wanted: Wanted, there: There) -> Outcome | None:
        """What lies there, if it is the file; None if it may be replaced.

        Raises:
            WrongContentError: it is another file, which may be somebody's own.
        """
        key, record = f"{FOLDER}/{wanted.to}", self.records.recall(wanted.to, there)
        same_size = wanted.size in (None, there.size)
        if same_size and record and (record.sha256 == wanted.sha256 or not wanted.hashed):
            return Outcome(key, "present", there.size, wanted.known, "record")
        if same_size and (record is None or wanted.sha256 is None):
            if not wanted.hashed or not (self.verify or there.size <= volume_upload.PART_BYTES):
                return Outcome(key, "present", there.size, "size" if wanted.size is not None else "nothing")
            check = Check(wanted)
            for block in self._read_back(wanted, there):
                check.add(block)
            if check.fits:
                self.records.keep(wanted.to, there, check.sha256, record.source if record else "")
                return Outcome(key, "present", there.size, wanted.known, "read")
        if self.replace or (record and record.source):
            return None
        raise WrongContentError(
            f"the volume holds another file of this name, {terminal.size(there.size)}: give --replace, or move it away"
        )

    def _send(self, file: File, remote: Remote, wanted: Wanted, before: There | None) -> Outcome:
        key = f"{FOLDER}/{wanted.to}"
        check = Check(wanted)
        upload = Upload(self.s3, self.bucket, key)
        talk = Talk(key, wanted.size or 0)
        verified = ""
        try:
            for content in volume_upload.cut(self._bytes(file, remote)):
                check.add(content)
                upload.add(content)
                talk(check.size)
            upload.settle()
            try:
                verified = check.verdict()
            except WrongContentError:
                upload.abort()
                raise
            upload.complete()
            there = self.records.look(wanted.to)
        except LostError as error:
            there = self._appeared(wanted, before, _LOOKS_AT_OURS if verified else _LOOKS)
            if there is None:
                raise PodError(f"{error}: the same command goes on with it") from error
            if not verified:
                return self._brought(wanted, there)
        if there is None or there.size != check.size:
            raise PodError(f"the volume holds {there.size if there else 0} bytes of it, and {check.size} were sent")
        self.records.keep(wanted.to, there, check.sha256, str(file.source))
        volume_upload.sweep(self.s3, self.bucket, [one for one in self._halves(key) if one.key == key])
        return Outcome(key, "filled", check.size, verified, "sent", upload.kept)

    def _halves(self, prefix: str) -> Iterator[volume_upload.Half]:
        return volume_upload.halves(self.s3, self.bucket, prefix)

    def _appeared(self, wanted: Wanted, before: There | None, looks: int) -> There | None:
        """What lies there since the upload, whose end nobody reported."""
        for _ in range(looks):
            there = self.records.look(wanted.to)
            if there and there != before and wanted.size in (None, there.size):
                return there
            self.sleep(_LOOK_PAUSE)
        return None

    def _brought(self, wanted: Wanted, there: There) -> Outcome:
        """The file, which another run has brought meanwhile."""
        key = f"{FOLDER}/{wanted.to}"
        for _ in range(_LOOKS):
            record = self.records.recall(wanted.to, there)
            if record and wanted.sha256 in (None, record.sha256):
                return Outcome(key, "present", there.size, wanted.known, "record")
            self.sleep(_LOOK_PAUSE)
        return Outcome(key, "present", there.size, "size")

    def _located(self, file: File) -> Remote:
        for number in range(1, TRIES + 1):
            try:
                remote = self.sources.resolve(file)
                check_offer(file, remote)
                return remote
            except TransientError:
                if number == TRIES:
                    raise
                self.sleep(min(2.0**number, 60.0))
        raise AssertionError("unreachable")

    def _bytes(self, file: File, remote: Remote) -> Iterator[bytes]:
        """Read the file from its source; a connection that breaks is taken up where it broke."""
        at, failures, etag = 0, 0, ""
        while True:
            try:
                answer = self.sources.http.open(remote, (at, ENDLESS), file.to, etag)
                if answer.start != at:
                    raise PodError(f"the source restarted at {answer.start} instead of {at}: the same command goes on")
                etag, total = answer.etag, answer.total
                try:
                    for block in answer.response.stream(_BLOCK, decode_content=False):
                        at, failures = at + len(block), 0
                        yield block
                finally:
                    answer.response.close()
                if total is None or at >= total:
                    return
                raise TransientError(f"the source sent {at} bytes of {total}")
            except (TransientError, urllib3.exceptions.HTTPError, OSError) as error:
                failures += 1
                if failures == TRIES:
                    raise PodError(str(error)) from error
                self.sleep(min(2.0**failures, 60.0))
                remote = self._located(file)

    def _read_back(self, wanted: Wanted, there: There) -> Iterator[bytes]:
        """Read the file from the volume; a connection that breaks is taken up where it broke."""
        from botocore.exceptions import BotoCoreError

        key, at, failures = f"{FOLDER}/{wanted.to}", 0, 0
        self.say(f"{key}: reading {terminal.size(there.size)} back")
        talk = Talk(key, there.size)
        while at < there.size:
            try:
                answer = self.s3.get_object(Bucket=self.bucket, Key=key, Range=f"bytes={at}-")
                for block in answer["Body"].iter_chunks(_BLOCK):
                    at, failures = at + len(block), 0
                    talk(at)
                    yield block
            except (BotoCoreError, urllib3.exceptions.HTTPError, OSError) as error:
                failures += 1
                if failures == TRIES:
                    raise PodError(f"RunPod's S3 API: {error}") from error
                self.sleep(min(2.0**failures, 60.0))
