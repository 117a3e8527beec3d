"""The bucket, as an upload sees it: look a key up, put an object where nothing lies, send one in parts."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from botocore.exceptions import ClientError

from hearmeman.settings import Settings
from hearmeman.sync.bandwidth import Bandwidth
from hearmeman.sync.client import Requests, make_client

LOOK_SECONDS = 10.0
"""After a key was taken, keys are looked up before anything is sent for so long: more may be taken."""
_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "mov": "video/quicktime",
    "mkv": "video/x-matroska",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "glb": "model/gltf-binary",
}


_PROBE = b"hearmeman looks whether this bucket heeds conditions; this object may be deleted\n"
_CLAIM = b"hearmeman is about to put a large file here; if this stays, the upload was cut short\n"


class TakenError(Exception):
    """An object lies at the key already."""


class AllKeysTakenError(Exception):
    """Objects of other content lie at every key that a file could have."""


class NotS3Error(Exception):
    """What answers is no S3 server: it says that all is well, and names no entity tag."""


class UploadLostError(Exception):
    """The bucket knows nothing of a multipart upload, any more."""


@dataclass(frozen=True)
class Stored:
    """An object that lies at a key; its facts, not its bytes."""

    size: int
    """Bytes."""
    etag: str
    """The entity tag, without quotes; the md5 of an object sent in one piece."""
    sha256: str
    """What its sender said it is; empty if nothing."""
    mtime_ns: int = 0
    """Last change of the file that it came from, nanoseconds since 1970; 0 if its sender did not say."""
    claim: str = ""
    """The sha256 of the large file that it keeps the place for; empty for all else."""

    def holds(self, path: Path, size: int, sha256: str) -> bool:
        """Tell whether it holds what the file `path` does, whose size and sha256 are given."""
        if self.size != size:
            return False
        if self.sha256:
            return self.sha256 == sha256
        if len(self.etag) != 32:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest() == self.etag


class Bucket:
    """One bucket at one endpoint; safe from any thread."""

    def __init__(self, settings: Settings, connections: int) -> None:
        """Make the client; nothing is sent yet.

        Raises:
            SettingsError: a variable that it needs is not set.
        """
        self.name = settings.r2_bucket
        self.endpoint = settings.r2_endpoint
        self.requests = Requests()
        self.client = make_client(settings, connections, self.requests)
        self.heeds_conditions: bool | None = None
        """Whether a put with `If-None-Match: *` leaves what lies there alone; None: not known yet."""
        self.completes_conditionally: bool | None = None
        """The same of a multipart upload's completion."""
        self.bandwidth = Bandwidth(settings.sync_bandwidth)
        self._look_until = 0.0
        self._learning = threading.Lock()

    def is_free(self, key: str) -> bool:
        """Tell whether `put` may try `key` without a look: the condition is heeded, and keys are not taken in a row."""
        return bool(self.heeds_conditions) and time.monotonic() >= self._look_until

    def try_condition(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        """Put what was just put once more, once: a server that takes it again does not heed the condition."""
        if self.heeds_conditions is not None:
            return
        self.heeds_conditions = False  # For the other threads, as long as it is not known.
        try:
            self.put(key, body, metadata)
        except TakenError:
            self.heeds_conditions, self._look_until = True, 0.0
        except Exception:
            self.heeds_conditions = None
            raise

    def head(self, key: str, strict: bool = False) -> Stored | None:
        """Ask what lies at `key`; None if nothing does. With `strict` a refusal is raised.

        A refusal has no body, so no reason, and a token that may not read is refused whatever lies there: then too the
        answer is None, and the conditional put decides or is told the reason.
        """
        try:
            found = self.client.head_object(Bucket=self.name, Key=key)
        except ClientError as error:
            if _status(error) in ((404,) if strict else (400, 403, 404)):
                return None
            raise
        told = {name.lower(): value for name, value in found.get("Metadata", {}).items()}
        return Stored(
            found["ContentLength"],
            _entity_tag(found).strip('"'),
            told.get("sha256", ""),
            _mtime_ns(told.get("mtime", "")),
            told.get("claim", ""),
        )

    def put(self, key: str, body: bytes | IO[bytes], metadata: Mapping[str, str], md5: str = "") -> None:
        """Put one object in one piece, in an atomic step; with `md5` (base64) the server refuses other bytes.

        Raises:
            TakenError: something lies at `key`.
        """
        more: dict[str, Any] = {"ContentMD5": md5} if md5 else {}
        try:
            sent = self.client.put_object(
                Bucket=self.name,
                Key=key,
                Body=body,
                IfNoneMatch="*",
                ContentType=content_type(key),
                Metadata=metadata,
                **more,
            )
        except ClientError as error:
            found = _conflict(error, key)
            if isinstance(found, TakenError):
                self._look_until = time.monotonic() + LOOK_SECONDS
            raise found from error
        _entity_tag(sent)

    def begin(self, key: str, metadata: Mapping[str, str]) -> str:
        """Begin a multipart upload; the answer is its id."""
        begun = self.client.create_multipart_upload(
            Bucket=self.name, Key=key, ContentType=content_type(key), Metadata=metadata
        )
        if not begun.get("UploadId"):
            raise NotS3Error
        return begun["UploadId"]

    def put_part(self, key: str, upload_id: str, number: int, body: IO[bytes], md5: str) -> str:
        """Send part `number` (from 1); the answer is its entity tag.

        Raises:
            UploadLostError: the upload is not known.
        """
        try:
            sent = self.client.upload_part(
                Bucket=self.name, Key=key, UploadId=upload_id, PartNumber=number, Body=body, ContentMD5=md5
            )
        except ClientError as error:
            raise _lost(error, upload_id) from error
        return _entity_tag(sent)

    def complete(self, key: str, upload_id: str, etags: Sequence[str], conditional: bool) -> None:
        """Make the object of its parts; with `conditional`, only where nothing lies at `key`.

        Raises:
            TakenError: something lies there.
            UploadLostError: the upload is not known.
        """
        parts: Any = {"Parts": [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]}
        more: dict[str, Any] = {"IfNoneMatch": "*"} if conditional else {}
        try:
            self.client.complete_multipart_upload(
                Bucket=self.name, Key=key, UploadId=upload_id, MultipartUpload=parts, **more
            )
        except ClientError as error:
            raise _conflict(_lost(error, upload_id), key) from error

    def reserve(self, key: str, sha256: str, prefix: str) -> bool:
        """Make sure, just before a large file's parts become an object, that it replaces nothing at `key`.

        The answer is whether the completion is to be conditional. Where the server heeds that for puts alone, a small
        object is put first, conditionally, and the completion replaces it. Where it heeds none, this look must do.

        Raises:
            TakenError: something lies at `key`.
        """
        there = self.head(key)
        if there is not None and there.claim != sha256:
            raise TakenError(key)
        with self._learning:
            if self.completes_conditionally is None:
                self._learn(f"{prefix}/.hearmeman-test/{secrets.token_hex(8)}")
        if there is None and not self.completes_conditionally and self.heeds_conditions:
            self.put(key, _CLAIM, {"claim": sha256})
        return bool(there is None and self.completes_conditionally)

    def _learn(self, key: str) -> None:
        """Find out what the server makes of conditions, with an object at `key` that goes again."""
        self.put(key, _PROBE, {})
        try:
            self.try_condition(key, _PROBE, {})
            self.completes_conditionally = bool(self.heeds_conditions) and self._refuses_completion(key)
        finally:
            with contextlib.suppress(ClientError):  # A token or a lock that forbids this leaves a few bytes there.
                self.client.delete_object(Bucket=self.name, Key=key)

    def _refuses_completion(self, key: str) -> bool:
        """Complete a conditional upload where an object lies; a server that takes it writes the same bytes again."""
        upload_id = self.begin(key, {})
        md5 = base64.b64encode(hashlib.md5(_PROBE, usedforsecurity=False).digest()).decode()
        try:
            etag = self.put_part(key, upload_id, 1, io.BytesIO(_PROBE), md5)
            self.complete(key, upload_id, [etag], conditional=True)
        except (TakenError, ClientError) as error:
            self.abort(key, upload_id)
            if isinstance(error, TakenError):
                return True
            if _status(error) == 501 or _code(error) in ("NotImplemented", "InvalidRequest", "InvalidArgument"):
                return False
            raise
        return False

    def abort(self, key: str, upload_id: str) -> None:
        """Give a multipart upload up; one that is not known is no error."""
        try:
            self.client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload_id)
        except ClientError as error:
            if _status(error) != 404:
                raise

    def abort_all(self, key: str, since: float) -> None:
        """Give up every multipart upload to exactly `key` that was begun at `since` (Unix seconds) or later.

        A token that may not list leaves them to `sync parts` and the bucket's own rules.
        """
        try:
            for page in self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.name, Prefix=key):
                for upload in page.get("Uploads", []):
                    if upload["Key"] == key and upload["Initiated"].timestamp() >= since:
                        self.abort(key, upload["UploadId"])
        except ClientError as error:
            if _status(error) not in (403, 404):  # Some servers answer 404 where there is no upload at all.
                raise

    def delete(self, key: str) -> None:
        """Delete one object; that nothing lies there is no error."""
        self.client.delete_object(Bucket=self.name, Key=key)


def content_type(key: str) -> str:
    """Give the media type for a key's extension."""
    return _TYPES.get(key.rpartition(".")[2].lower(), "application/octet-stream")


def _entity_tag(answer: Mapping[str, Any]) -> str:
    tag = answer.get("ETag")
    if not tag:
        raise NotS3Error("it names no entity tag")
    return str(tag)


def _mtime_ns(text: str) -> int:
    """Read seconds with up to nine decimals, as rclone and this write them."""
    seconds, _, fraction = text.partition(".")
    digits = seconds + fraction[:9].ljust(9, "0")
    return int(digits) if digits.isascii() and digits.isdecimal() else 0


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _conflict(error: Exception, key: str) -> Exception:
    if isinstance(error, ClientError) and _code(error) in ("PreconditionFailed", "ConditionalRequestConflict", "412"):
        return TakenError(key)
    return error


def _lost(error: ClientError, upload_id: str) -> Exception:
    return UploadLostError(upload_id) if _code(error) == "NoSuchUpload" else error
