"""A boto3 client set up for R2, which counts the requests it sends."""

from __future__ import annotations

import functools
import os
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.handlers import add_expect_header

from hearmeman.settings import Settings, SettingsError
from hearmeman.settings.declare import Problem

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

STALL_SECONDS = 15
"""Without a byte for so long while connecting or sending, the connection counts as dead."""
ANSWER_SECONDS = 60
"""How long an answer may take once everything is sent."""


class Requests:
    """How many requests of each operation were sent since they were last taken; safe from any thread."""

    def __init__(self) -> None:
        """Start with none."""
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def count(self, model: Any, **unused: object) -> None:
        """Count one, as a handler of botocore's `before-call` event."""
        with self._lock:
            self._counts[model.name] += 1

    def take(self) -> Counter[str]:
        """Give the counts and start again from none."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts


def make_client(settings: Settings, connections: int, requests: Requests, attempts: int = 1) -> S3Client:
    """Make a client for the endpoint that the settings name, which tries a request `attempts` times; nothing is sent yet.

    Raises:
        SettingsError: the endpoint or a key is not set.
    """
    missing = [n for n in ("r2_endpoint", "r2_access_key_id", "r2_secret_access_key") if not getattr(settings, n)]
    if missing or not settings.r2_access_key_id or not settings.r2_secret_access_key:
        names = ", ".join(name.upper() for name in missing)
        why = (
            f"{names} must be set to upload: give the bucket's endpoint and a token's two keys; in a pod with "
            "ENABLE_R2_SYNC=true root's shells need none of them"
        )
        raise SettingsError([Problem(missing[0].upper() if missing else "", why)])
    client: S3Client = session().client(
        "s3",
        endpoint_url=settings.r2_endpoint,
        aws_access_key_id=settings.r2_access_key_id.get_secret_value(),
        aws_secret_access_key=settings.r2_secret_access_key.get_secret_value(),
        config=client_config(connections, attempts),
    )
    client.meta.events.register("before-call.s3", requests.count)
    client.meta.events.register("before-sign.s3", _md5_suffices)
    return client


def session() -> boto3.Session:
    """Make a session that nothing but its caller configures.

    AWS_PROFILE, AWS_ENDPOINT_URL, AWS_CA_BUNDLE and their like, and the files in ~/.aws, are another tool's: they would
    redirect data without a word, or end the sync where they are broken.
    """
    ours = {
        name: (None, None, default, convert)
        for name, (_, _, default, convert) in botocore.session.Session.SESSION_VARIABLES.items()
    }
    ours |= dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    core = botocore.session.Session(session_vars=ours)
    core.register_component("data_loader", _loader())
    # R2 never answers 100, so each upload of a file would wait a second for it.
    core.get_component("event_emitter").unregister("before-call.s3", add_expect_header)
    return boto3.Session(botocore_session=core)


@functools.cache
def _loader() -> botocore.loaders.Loader:
    """Give what reads botocore's descriptions of services, one for all sessions: they are megabytes of JSON.

    Its table of Amazon's endpoints, 8 MB once it is read, is an empty one of ours: every client is told its endpoint.
    What lies in ~/.aws/models is another tool's.
    """
    ours = Path(__file__).with_name("botocore_data")
    return botocore.loaders.Loader(
        [str(ours), botocore.loaders.Loader.BUILTIN_DATA_PATH], include_default_search_paths=False
    )


_UNSIGNED = Config(s3={"addressing_style": "path", "payload_signing_enabled": False})


def _md5_suffices(request: Any, **unused: object) -> None:
    # The server checks a body against its Content-MD5; botocore would read it once more to sign its sha256 too,
    # except over TLS.
    if "Content-MD5" in request.headers:
        config: Config = request.context["client_config"]
        request.context = {**request.context, "client_config": config.merge(_UNSIGNED)}


def client_config(connections: int, attempts: int = 1) -> Config:
    """Set botocore up for R2: no checksum headers or trailers, path style, region auto; the sync's retries are its own."""
    return Config(
        region_name="auto",
        signature_version="s3v4",
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=STALL_SECONDS,
        read_timeout=ANSWER_SECONDS,
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": attempts},
        s3={"addressing_style": "path"},
        tcp_keepalive=True,
    )
