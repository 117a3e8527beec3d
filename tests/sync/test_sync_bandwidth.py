"""SYNC_BANDWIDTH holds for all uploads together, whatever way their bytes are sent."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes.r2 import R2
from hearmeman.settings import SettingsError, load
from hearmeman.sync.bandwidth import Bandwidth
from hearmeman.sync.bucket import Bucket
from hearmeman.sync.multipart import MULTIPART_ABOVE
from hearmeman.sync.tree import look
from hearmeman.sync.upload import Uploader


@pytest.mark.parametrize(
    ("sizes", "rate"), [([500_000] * 8, 2.0), ([9 * 1024**2] * 2, 10.0), ([MULTIPART_ABOVE + 1], 50.0)]
)
def test_no_more_is_sent_than_the_rate_allows(tmp_path: Path, sizes: list[int], rate: float) -> None:
    with R2(keep=False) as r2:
        uploader = Uploader(Bucket(load({**r2.environ(), "SYNC_BANDWIDTH": str(rate)}), 16), "o", tmp_path)
        for number, size in enumerate(sizes):
            (tmp_path / f"{number}.mp4").write_bytes(os.urandom(1000) * (size // 1000 + 1))
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            jobs = []
            for number in range(len(sizes)):
                seen = look(tmp_path, f"{number}.mp4")
                assert seen is not None
                jobs.append(pool.submit(uploader.upload, f"{number}.mp4", seen))
            for job in jobs:
                job.result()
        # The bucket lets a first piece through at once, and averages over a few more.
        assert time.monotonic() - began > 0.8 * sum(sizes) / (rate * 1e6)
        assert len(r2.objects) == len(sizes)


def test_without_a_rate_nothing_waits() -> None:
    began = time.monotonic()
    Bandwidth(0).wait(10**12)
    assert time.monotonic() - began < 1


def test_a_rate_below_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match="SYNC_BANDWIDTH"):
        load({"SYNC_BANDWIDTH": "-1"})
