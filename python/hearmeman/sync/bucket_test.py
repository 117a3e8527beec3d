"""`hearmeman upload --test`: puts, looks up, reads and removes a small object, and says in a sentence what failed."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable

from hearmeman.errors import HearmemanError
from hearmeman.sync.bucket import Bucket
from hearmeman.sync.failures import classify


class BucketTestError(HearmemanError):
    """The bucket does not take uploads."""


def test(bucket: Bucket, prefix: str, as_json: bool) -> None:
    """Try the bucket with an object of its own, which is removed again where the token and the bucket allow it.

    Raises:
        BucketTestError: a step failed; the sentence says which, and what to do.
    """
    key = f"{prefix}/.hearmeman-test/{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
    content = secrets.token_bytes(64)
    seconds: dict[str, float] = {}

    def put() -> None:
        bucket.put(key, content, {})

    def head() -> None:
        found = bucket.head(key)
        if found is None or found.size != len(content):
            raise BucketTestError(
                f"head: {key} was written but cannot be looked up: give the token object read and write on "
                f"{bucket.name}"
            )

    def get() -> None:
        if bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read() != content:
            raise BucketTestError(
                f"get: {key} holds other bytes than were written: {bucket.endpoint} cannot be trusted"
            )

    left = key
    try:
        for name, step in (("put", put), ("head", head), ("get", get)):
            seconds[name] = _timed(name, step, bucket)
    finally:
        if "put" in seconds and _delete(bucket, key, seconds):
            left = ""
    if as_json:
        told = {"bucket": bucket.name, "endpoint": bucket.endpoint, "key": key, "seconds": seconds, "left": left}
        print(json.dumps(told))
        return
    times = ", ".join(f"{step} {value} s" for step, value in seconds.items())
    print(f"bucket {bucket.name} at {bucket.endpoint} takes uploads: {times}")
    if left:
        print(f"The test's object could not be removed and stays, 64 bytes: {left}")


def _timed(name: str, step: Callable[[], None], bucket: Bucket) -> float:
    began = time.monotonic()
    try:
        step()
    except HearmemanError:
        raise
    except Exception as error:
        raise BucketTestError(f"{name}: {classify(error, bucket.endpoint, bucket.name).sentence}") from error
    return round(time.monotonic() - began, 3)


def _delete(bucket: Bucket, key: str, seconds: dict[str, float]) -> bool:
    # A bucket lock, or a server whose tokens may not delete, is no reason to say that uploads do not work.
    try:
        seconds["delete"] = _timed("delete", lambda: bucket.delete(key), bucket)
    except BucketTestError:
        return False
    return True
