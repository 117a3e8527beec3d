"""A bucket of the user's own as a cache of models: asked first, filled after a verified download."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hearmeman.errors import HearmemanError, UsageError
from hearmeman.log import log
from hearmeman.models.catalogue import File
from hearmeman.models.remote import Remote
from hearmeman.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from s3transfer.futures import TransferFuture

LINK_SECONDS = 12 * 3600
PART_BYTES = 64 * 1024**2
AT_ONCE = 4
"""Parts that are uploaded at once."""
STEP_PERCENT = 10


class CacheSettingsError(UsageError):
    """MODEL_CACHE is set, and what it needs is not."""


class Cache:
    """Objects named by their content's sha256, so that none is ever another file than it says; shared by threads."""

    def __init__(self, settings: Settings) -> None:
        parts = urlsplit(settings.model_cache)
        self.bucket, self.prefix = parts.netloc, parts.path.strip("/")
        self.endpoint = settings.r2_endpoint
        self.takes_restricted = settings.model_cache_restricted
        self.usable = True
        self._client = _client(settings)
        self._manager = _manager(self._client)
        self._lock = threading.Lock()
        self._wanted: set[str] = set()
        """Hashes whose object is missing or wrong."""
        self._uploads: list[TransferFuture] = []

    def takes(self, file: File) -> bool:
        """Whether a file may be kept in a bucket: not one that is gated or must not be copied, unless that was asked for."""
        return self.takes_restricted or not (file.gate or file.no_mirror)

    def find(self, sha256: str, size: int | None) -> Remote | None:
        """Give the address of that content; None when it is not there, is wrong, or the bucket does not answer."""
        from botocore.exceptions import BotoCoreError, ClientError

        if not self.usable:
            return None
        try:
            there = self._client.head_object(Bucket=self.bucket, Key=self._key(sha256))["ContentLength"]
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                self._give_up(str(error))
            self._want(sha256)
            return None
        except BotoCoreError as error:
            self._give_up(str(error))
            return None
        if size and there != size:
            self.distrust(sha256, self._key(sha256), f"it has {there} bytes instead of {size}")
            return None
        link = self._client.generate_presigned_url(
            "get_object", Params={"Bucket": self.bucket, "Key": self._key(sha256)}, ExpiresIn=LINK_SECONDS
        )
        return Remote(url=link, size=there, sha256=sha256, cached=True)

    def distrust(self, sha256: str, name: str, why: str) -> None:
        """Say that the object of that content is of no use; it is replaced once the source has sent the right one."""
        log("cache.mismatched", file=name, why=why, then="asking the source, and replacing the object")
        self._want(sha256)

    def fill(self, path: Path, sha256: str) -> None:
        """Upload a verified file in the background, if the bucket does not have it or has it wrong."""
        with self._lock:
            if sha256 not in self._wanted or not self.usable:
                return
            self._wanted.discard(sha256)
            upload = self._manager.upload(
                str(path), self.bucket, self._key(sha256), subscribers=[_Told(path, self._give_up)]
            )
            self._uploads.append(upload)

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until everything is uploaded; a signal, now or before, ends it and leaves no multipart upload open."""
        try:
            # Not one long wait: a signal must get through.
            while (error is None or isinstance(error, HearmemanError)) and self._unfinished():
                time.sleep(0.1)
        finally:
            if unfinished := self._unfinished():
                log("cache.stopped", unfinished=unfinished)
            # One by one: s3transfer's shutdown(cancel=True) confuses its own arguments (0.19.3).
            for upload in self._uploads:
                upload.cancel()
            self._manager.shutdown()

    def _unfinished(self) -> int:
        return sum(not upload.done() for upload in self._uploads)

    def _want(self, sha256: str) -> None:
        with self._lock:
            self._wanted.add(sha256)

    def _give_up(self, why: str) -> None:
        if not self.usable:
            return
        self.usable = False
        log("cache.unusable", bucket=self.bucket, endpoint=self.endpoint, why=why[:300], then="going on without it")

    def _key(self, sha256: str) -> str:
        return f"{self.prefix}/sha256/{sha256}".lstrip("/")


class _Told:
    """What s3transfer reports of one upload, as lines in the log."""

    def __init__(self, path: Path, failed: Callable[[str], None]) -> None:
        self.name, self.size = path.name, path.stat().st_size
        self._failed, self._done, self._said = failed, 0, 0
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def on_queued(self, future: Any, **rest: Any) -> None:
        """Say nothing: it may wait long for its turn."""

    def on_progress(self, future: Any, bytes_transferred: int, **rest: Any) -> None:
        """Count what went out; what is sent again is taken back first."""
        with self._lock:
            self._done += bytes_transferred
            step = 100 * self._done // max(self.size, 1) // STEP_PERCENT
            if step <= self._said or self.size < PART_BYTES:
                return
            self._said = step
        log("cache.filling", file=self.name, percent=step * STEP_PERCENT, done=self._done, of=self.size)

    def on_done(self, future: Any, **rest: Any) -> None:
        """Say how it ended."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            future.result()
            log("cache.filled", file=self.name, bytes=self.size, seconds=time.monotonic() - self._began)
        except CancelledError:
            log("cache.cancelled", file=self.name, bytes=self._done, of=self.size)
        except (Boto3Error, BotoCoreError, ClientError, OSError) as error:
            self._failed(str(error))


def _manager(client: S3Client) -> Any:
    from s3transfer.manager import TransferConfig, TransferManager

    how = TransferConfig(
        multipart_threshold=2 * PART_BYTES,
        multipart_chunksize=PART_BYTES,
        max_request_concurrency=AT_ONCE,
        max_submission_concurrency=1,
    )
    return TransferManager(client, how)


def _client(settings: Settings) -> S3Client:
    from botocore.config import Config

    from hearmeman.sync.client import client_config, session

    access, secret = settings.r2_access_key_id, settings.r2_secret_access_key
    if not (settings.r2_endpoint and access and secret):
        raise CacheSettingsError(
            "MODEL_CACHE needs R2_ENDPOINT, R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY: set all three, or unset it"
        )
    client: S3Client = session().client(
        "s3",
        endpoint_url=settings.r2_endpoint,
        aws_access_key_id=access.get_secret_value(),
        aws_secret_access_key=secret.get_secret_value(),
        # A large upload does not end with one refused part.
        config=client_config(2 * AT_ONCE).merge(Config(retries={"mode": "standard", "total_max_attempts": 5})),
    )
    return client
