"""Tells an upload's failures apart: what happened, what it means, what to do, and whether it concerns every file."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from hearmeman.sync.bucket import AllKeysTakenError, NotS3Error, UploadLostError
from hearmeman.sync.multipart import FileChangedError


@dataclass(frozen=True)
class Failure:
    """One kind of failure."""

    kind: str
    """A short name, the same for every failure with the same remedy."""
    sentence: str
    """What a person needs to know."""
    everywhere: bool
    """Whether it stops every upload, or only this file's."""


_CODES = {
    "InvalidAccessKeyId": "keys",
    "SignatureDoesNotMatch": "keys",
    "InvalidAccessKey": "keys",
    "ExpiredToken": "keys",
    "InvalidToken": "keys",
    "TokenRefreshRequired": "keys",
    "Unauthorized": "keys",
    "401": "keys",
    "AuthorizationHeaderMalformed": "keys",
    "AccessDenied": "forbidden",
    "Forbidden": "forbidden",
    "AllAccessDisabled": "forbidden",
    "403": "forbidden",
    "NoSuchBucket": "no-bucket",
    "RequestTimeTooSkewed": "clock",
    "RequestExpired": "clock",
    "SlowDown": "slow-down",
    "TooManyRequests": "slow-down",
    "429": "slow-down",
    "ServiceUnavailable": "server",
    "InternalError": "server",
    "OperationAborted": "server",
    "RequestTimeout": "connection",
    "408": "connection",
    "QuotaExceeded": "full",
    "InsufficientStorage": "full",
    "507": "full",
    "KeyTooLongError": "key",
    "EntityTooLarge": "too-large",
}
_CHANGED = {"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"}


def classify(error: BaseException, endpoint: str, bucket: str) -> Failure:
    """Name what went wrong when something was sent to `bucket` at `endpoint`.

    Raises:
        FileChangedError: the server received other bytes than were announced, so the file is being written to.
    """
    if any(isinstance(cause, FileChangedError) for cause in _causes(error)):
        raise FileChangedError
    if isinstance(error, UploadLostError):
        return Failure("upload-lost", "the bucket forgot a half-sent upload: it is sent again from the start", False)
    if isinstance(error, AllKeysTakenError):
        return Failure("taken", f"other content lies at {error} and at its shorter names: rename the file", False)
    if isinstance(error, boto.ClientError):
        return _answered(error, endpoint, bucket)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return _failure("keys", endpoint, bucket, "no keys are set")
    if isinstance(error, boto.SSLError) or any(isinstance(cause, ssl.SSLError) for cause in _causes(error)):
        return _failure("tls", endpoint, bucket, _deepest(error))
    if isinstance(error, ResponseParserError | NotS3Error):
        return _failure("no-s3", endpoint, bucket, str(error).partition("\n")[0][:100] or "no XML")
    if any(isinstance(cause, socket.gaierror) or "NameResolution" in type(cause).__name__ for cause in _causes(error)):
        return _failure("dns", endpoint, bucket, "")
    if isinstance(error, boto.ConnectTimeoutError | boto.EndpointConnectionError | boto.ProxyConnectionError):
        return _failure("unreachable", endpoint, bucket, _deepest(error))
    if isinstance(error, boto.HTTPClientError | boto.IncompleteReadError):
        return _failure("connection", endpoint, bucket, _deepest(error))
    if isinstance(error, boto.ParamValidationError):
        return Failure("refused", f"botocore refuses the request: {error}", False)
    if isinstance(error, boto.BotoCoreError | ValueError):
        return _failure("no-s3", endpoint, bucket, str(error))
    if isinstance(error, OSError):
        return _local(error)
    return Failure("unknown", f"{type(error).__name__}: {error}", False)


def _answered(error: boto.ClientError, endpoint: str, bucket: str) -> Failure:
    told = error.response.get("Error", {})
    code, message = str(told.get("Code", "")), str(told.get("Message", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _CHANGED:
        raise FileChangedError(message)
    kind = _CODES.get(code) or _CODES.get(str(status))
    if kind is None and code == "InvalidArgument" and "access key" in message.lower():
        kind = "keys"
    if kind is None and status >= 500:
        kind = "server"
    if kind is None:
        return Failure("refused", f"the bucket refused the upload: {code or status} {message}".rstrip(), False)
    return _failure(kind, endpoint, bucket, f"{status} {code}" if code and code != str(status) else str(status))


_SENTENCES = {
    "keys": "the keys are not accepted by {endpoint} ({detail}): check R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY",
    "forbidden": "the keys may not write to bucket {bucket} at {endpoint} ({detail}): give the token object read and "
    "write on that bucket",
    "no-bucket": "bucket {bucket} does not exist at {endpoint}: create it, or set R2_BUCKET; a bucket in a "
    "jurisdiction "
    "has its own endpoint, such as https://<account>.eu.r2.cloudflarestorage.com",
    "clock": "this machine's clock is too far from the server's at {endpoint}: set the clock",
    "slow-down": "{endpoint} asks for fewer requests ({detail}): waiting longer between them",
    "server": "{endpoint} has an internal error ({detail}): waiting",
    "full": "the bucket or its account has no room left ({detail}): make room or raise its limit",
    "key": "the bucket refuses a name this long: shorten the file's name or its folders'",
    "too-large": "the bucket refuses a file of this size",
    "tls": "no secure connection to {endpoint} ({detail}): check R2_ENDPOINT, and this machine's clock and "
    "certificates",
    "dns": "the host of {endpoint} is not known: check R2_ENDPOINT and the network's name service",
    "unreachable": "{endpoint} cannot be reached ({detail}): check R2_ENDPOINT and the network",
    "connection": "the connection to {endpoint} broke ({detail}): trying again",
    "no-s3": "{endpoint} does not answer like an S3 server ({detail}): check R2_ENDPOINT",
}
_OF_ONE_FILE = {"key", "too-large"}
KINDS = (*_SENTENCES, "upload-lost", "taken", "refused", "unreadable", "disk", "changed", "unknown")
"""Every kind of failure."""


def _failure(kind: str, endpoint: str, bucket: str, detail: str) -> Failure:
    text = _SENTENCES[kind].format(endpoint=endpoint, bucket=bucket, detail=detail).rstrip()
    return Failure(kind, text, kind not in _OF_ONE_FILE)


def _local(error: OSError) -> Failure:
    where, why = error.filename or "the file", error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return Failure("unreadable", f"{where!s} cannot be read: {why}: let this process's user read it", False)
    return Failure("disk", f"{os.fspath(where)!s} cannot be read: {why}", False)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    told: set[int] = set()
    while error is not None and id(error) not in told:
        told.add(id(error))
        yield error
        given = getattr(error, "kwargs", {}).get("error")
        error = error.__cause__ or error.__context__ or (given if isinstance(given, BaseException) else None)


def _deepest(error: BaseException) -> str:
    *_, last = _causes(error)
    text = getattr(last, "strerror", None) or str(last) or type(last).__name__
    return str(text).partition("\n")[0][:200]
