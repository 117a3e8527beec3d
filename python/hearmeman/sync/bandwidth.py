"""Keeps all uploads together below a rate: s3transfer's leaky bucket, asked before each piece is sent."""

from __future__ import annotations

import time

from s3transfer.bandwidth import LeakyBucket, RequestExceededException, RequestToken

_PIECE = 256 * 1024
"""Bytes asked for at once; s3transfer takes as many, so that a slow rate does not become bursts."""


class Bandwidth:
    """A rate that all threads share."""

    def __init__(self, megabytes_per_second: float) -> None:
        """Set the rate, in millions of bytes a second; 0 means that there is none."""
        self._bucket = LeakyBucket(round(megabytes_per_second * 1e6)) if megabytes_per_second else None

    def wait(self, size: int) -> None:
        """Wait until `size` more bytes may be sent."""
        if self._bucket is None:
            return
        for start in range(0, size, _PIECE):
            self._wait(self._bucket, min(_PIECE, size - start))

    @staticmethod
    def _wait(bucket: LeakyBucket, size: int) -> None:
        token = RequestToken()
        while True:
            try:
                bucket.consume(size, token)
            except RequestExceededException as later:
                time.sleep(later.retry_time)
            else:
                return
