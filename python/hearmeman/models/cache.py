"""A bucket of the user's own as a cache of models: asked first, filled after a verified download."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hearmeman.errors import UsageError
from hearmeman.log import log
from hearmeman.models.sources import Remote
from hearmeman.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LINK_SECONDS = 12 * 3600
PART_BYTES = 64 * 1024**2


class CacheSettingsError(UsageError):
    """MODEL_CACHE is set, and what it needs is not."""


class Cache:
    """Objects named by their content's sha256, so that none is ever another file than it says."""

    def __init__(self, settings: Settings) -> None:
        parts = urlsplit(settings.model_cache)
        self.bucket, self.prefix = parts.netloc, parts.path.strip("/")
        self.endpoint = settings.r2_endpoint
        self.usable = True
        self._client = _client(settings)
        self._lock = threading.Lock()
        self._missing: set[str] = set()
        self._queue: queue.SimpleQueue[tuple[Path, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._fill, name="cache", daemon=True)
        self._thread.start()

    def find(self, sha256: str) -> Remote | None:
        """Give the address of that content; None when it is not there or the bucket does not answer."""
        from botocore.exceptions import BotoCoreError, ClientError

        if not self.usable:
            return None
        try:
            size = self._client.head_object(Bucket=self.bucket, Key=self._key(sha256))["ContentLength"]
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                self._give_up(str(error))
            self._missing.add(sha256)
            return None
        except BotoCoreError as error:
            self._give_up(str(error))
            return None
        link = self._client.generate_presigned_url(
            "get_object", Params={"Bucket": self.bucket, "Key": self._key(sha256)}, ExpiresIn=LINK_SECONDS
        )
        return Remote(url=link, size=size, sha256=sha256)

    def fill(self, path: Path, sha256: str) -> None:
        """Upload a verified file in the background, if `find` did not find it."""
        if sha256 in self._missing and self.usable:
            self._queue.put((path, sha256))

    def close(self) -> None:
        """Wait until everything is uploaded."""
        self._queue.put(None)
        self._thread.join()

    def _fill(self) -> None:
        from boto3.exceptions import Boto3Error
        from boto3.s3.transfer import TransferConfig
        from botocore.exceptions import BotoCoreError, ClientError

        how = TransferConfig(multipart_threshold=2 * PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4)
        while (job := self._queue.get()) is not None:
            path, sha256 = job
            if not self.usable:
                continue
            try:
                self._client.upload_file(str(path), self.bucket, self._key(sha256), Config=how)
                log("cache.filled", file=path.name, bucket=self.bucket, bytes=path.stat().st_size)
            except (Boto3Error, BotoCoreError, ClientError, OSError) as error:
                self._give_up(str(error))

    def _give_up(self, why: str) -> None:
        with self._lock:
            if not self.usable:
                return
            self.usable = False
        log("cache.unusable", bucket=self.bucket, endpoint=self.endpoint, why=why[:300], then="going on without it")

    def _key(self, sha256: str) -> str:
        return f"{self.prefix}/sha256/{sha256}".lstrip("/")


def _client(settings: Settings) -> S3Client:
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
        config=client_config(8),
    )
    return client
