"""The bucket: a boto3 client set up for R2, and the few requests that an upload needs."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.handlers import add_expect_header

from hearmeman.settings import Settings, SettingsError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_SECONDS = 10
READ_SECONDS = 60
_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
}


@dataclass(frozen=True)
class Stored:
    """An object that lies at a key; its facts, not its bytes."""

    size: int
    """Bytes."""
    etag: str
    """The entity tag, without quotes; the md5 of an object sent in one piece."""
    sha256: str
    """What its sender said it is; empty if nothing."""

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


class TakenError(Exception):
    """An object lies at the key already."""


class Bucket:
    """One bucket at one endpoint."""

    def __init__(self, settings: Settings, connections: int) -> None:
        """Make the client; nothing is sent yet.

        Raises:
            SettingsError: a variable that it needs is not set.
        """
        missing = [n for n in ("r2_endpoint", "r2_access_key_id", "r2_secret_access_key") if not getattr(settings, n)]
        if missing or not settings.r2_access_key_id or not settings.r2_secret_access_key:
            names = ", ".join(name.upper() for name in missing)
            raise SettingsError(f"{names} must be set to upload: give the bucket's endpoint and a token's two keys")
        self.name = settings.r2_bucket
        self.endpoint = settings.r2_endpoint
        self.client: S3Client = boto3.client(
            "s3",
            endpoint_url=settings.r2_endpoint,
            aws_access_key_id=settings.r2_access_key_id.get_secret_value(),
            aws_secret_access_key=settings.r2_secret_access_key.get_secret_value(),
            config=client_config(connections),
        )
        # R2 never answers 100, so each upload of a file would wait a second for it.
        self.client.meta.events.unregister("before-call.s3", add_expect_header)

    def head(self, key: str) -> Stored | None:
        """Ask what lies at `key`; None if nothing does.

        A token that may not read is answered 403 whatever lies there; then the conditional put decides.
        """
        try:
            found = self.client.head_object(Bucket=self.name, Key=key)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (403, 404):
                return None
            raise
        told = {name.lower(): value for name, value in found.get("Metadata", {}).items()}
        return Stored(found["ContentLength"], found.get("ETag", "").strip('"'), told.get("sha256", ""))

    def put(self, key: str, body: bytes | IO[bytes], metadata: Mapping[str, str], md5: str = "") -> None:
        """Put one object in one piece, unless something lies at `key`.

        Raises:
            TakenError: something does.
        """
        checked = {"ContentMD5": md5} if md5 else {}
        try:
            self.client.put_object(
                Bucket=self.name,
                Key=key,
                Body=body,
                IfNoneMatch="*",
                ContentType=content_type(key),
                Metadata=metadata,
                **checked,  # type: ignore[arg-type]
            )
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (409, 412):
                raise TakenError(key) from error
            raise


def client_config(connections: int) -> Config:
    """Set botocore up for R2: no checksum headers or trailers, path style, region auto; retries are our own."""
    return Config(
        region_name="auto",
        signature_version="s3v4",
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": 1},
        s3={"addressing_style": "path"},
    )


def content_type(key: str) -> str:
    """Give the media type for a key's extension."""
    extension = key.rpartition(".")[2].lower()
    return _TYPES.get(extension) or mimetypes.guess_type(f"x.{extension}")[0] or "application/octet-stream"
