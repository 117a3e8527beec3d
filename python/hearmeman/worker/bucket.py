"""Uploads outputs that are too large for an answer, and gives their addresses once they are there."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from hearmeman.errors import HearmemanError
from hearmeman.sync.client import client_config, session
from hearmeman.worker import inputs
from hearmeman.worker.request import Bucket

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_WEEK = 7 * 86400
"""Seconds; the longest that a signed address may last."""
_CONNECTIONS = 10
"""As many parts as boto3 sends at once."""


class UploadError(HearmemanError):
    """An output could not be uploaded."""


class _Guarded:
    """Connects to addresses of the open internet alone, and to the very one that was looked at.

    The host was looked up when the job came; by now its name may stand for another address.
    """

    _dns_host: str
    port: int

    def _new_conn(self) -> socket.socket:
        name = self._dns_host
        self._dns_host = inputs.public_address(name, self.port)
        try:
            found: socket.socket = super()._new_conn()  # type: ignore[misc]
            return found
        finally:
            # The certificate is the name's.
            self._dns_host = name


def _guard(client: S3Client) -> None:
    """Let the client reach no private network, whatever its endpoint's name comes to stand for, or redirects to."""
    manager: Any = client._endpoint.http_session._manager  # type: ignore[attr-defined]
    manager.pool_classes_by_scheme = {scheme: _guarded(kind) for scheme, kind in manager.pool_classes_by_scheme.items()}


def _guarded(pool: Any) -> type:
    return type(pool.__name__, (pool,), {"ConnectionCls": type("Guarded", (_Guarded, pool.ConnectionCls), {})})


def upload(bucket: Bucket, key: str, path: Path, public: str = "", allow_private: bool = True) -> str:
    """Upload a file as `key` and give its address: below `public`, else one that is signed for seven days.

    Unless `allow_private`, nothing but addresses of the open internet is connected to.

    Raises:
        UploadError: it is not in the bucket whole.
    """
    size = path.stat().st_size
    try:
        client = _client(bucket)
        if not allow_private:
            _guard(client)
        client.upload_file(str(path), bucket.name, key)
        # An address is given for what can be read back, and for nothing else.
        there = int(client.head_object(Bucket=bucket.name, Key=key)["ContentLength"])
        if there != size:
            raise UploadError(
                f"{key} has {there} of {size} bytes in the bucket {bucket.name}: it was not uploaded completely"
            )
        if public:
            return f"{public.rstrip('/')}/{quote(key)}"
        return str(client.generate_presigned_url("get_object", {"Bucket": bucket.name, "Key": key}, ExpiresIn=_WEEK))
    except (BotoCoreError, ClientError, Boto3Error, ValueError) as error:
        raise UploadError(
            f"{key} could not be uploaded to the bucket {bucket.name} at {bucket.endpoint}: {str(error).rstrip('.')}. "
            "Check the endpoint, the bucket's name and the key's right to write"
        ) from None


def _client(bucket: Bucket) -> S3Client:
    # The answer waits for it, so a few tries have to do; the sync, which has time, tries by itself.
    few: Any = Config(region_name=region(bucket.endpoint), retries={"mode": "standard", "total_max_attempts": 4})
    client: S3Client = session().client(
        "s3",
        endpoint_url=bucket.endpoint,
        aws_access_key_id=bucket.key_id,
        aws_secret_access_key=bucket.secret,
        config=client_config(_CONNECTIONS).merge(few),
    )
    return client


def region(endpoint: str) -> str:
    """Give the region that requests are signed for: R2 takes us-east-1 for its own, and Amazon's address names it."""
    found = re.search(r"//s3[.-]([a-z]{2}-[a-z-]+-\d)\.amazonaws\.com", endpoint)
    return found[1] if found else "us-east-1"
