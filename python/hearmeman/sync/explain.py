"""Turns whatever a request to the bucket raises into one sentence that a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hearmeman.errors import HearmemanError
from hearmeman.sync.bucket import Bucket
from hearmeman.sync.failures import classify
from hearmeman.sync.multipart import FileChangedError


class BucketError(HearmemanError):
    """The bucket did not do what it was asked for."""


@contextmanager
def explained(bucket: Bucket, what: str = "") -> Iterator[None]:
    """Run requests to `bucket`; `what` is put before the sentence.

    Raises:
        BucketError: one of them failed.
    """
    try:
        yield
    except HearmemanError:
        raise
    except Exception as error:
        try:
            sentence = classify(error, bucket.endpoint, bucket.name).sentence
        except FileChangedError:
            sentence = "other bytes arrived than were sent: run the same command again"
        raise BucketError(f"{what}: {sentence}" if what else sentence) from error
