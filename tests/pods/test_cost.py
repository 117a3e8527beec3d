"""The bill: what was paid by pod, endpoint and volume, what goes on costing, and the bucket where its keys are here."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from fakes.r2 import R2, Fault
from fakes.runpod import RunPod
from hearmeman.sync.cost import read_prices

from .conftest import Operator
from .test_verbs import BODY


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2(bucket="films") as server:
        yield server


def test_each_pod_and_the_sum_and_what_goes_on_costing(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    runpod.made({**BODY, "name": "resting"}, "EXITED")
    code, out, err = operator("cost", "--days", "3")
    assert code == 0, err
    words = " ".join(out.split())
    assert "last 3 days" in words and "pod gone (gone) $3.00" in words and "pod pod0 mine $3.00" in words
    assert "volume vol1 v $2.00" in words and "together $11.00" in words
    assert "pod0, mine runs $0.69" in words
    assert "pod1, resting stopped, volume of 30 GB $6.00" in words
    assert "vol1, v network volume, 100 GB $7.00" in words
    assert "together $0.69 $13.00" in words
    assert "Set R2_ENDPOINT, R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY to see the bucket." in words
    assert max(map(len, out.splitlines())) <= 80


def test_the_bucket_is_listed_and_priced(operator: Operator, runpod: RunPod, r2: R2) -> None:
    operator.more = r2.environ()
    for number in range(1001):
        r2.lay(f"outputs/{number}.png", b"x" * 1000)
    runpod.made(dict(BODY), "EXITED")
    code, out, err = operator("cost", "--json")
    assert code == 0, err
    found = json.loads(out)
    price = 1001 * 1000 / 1e9 * read_prices()["storage_gb_month"]
    assert found["bucket"] == {"bucket": "films", "objects": 1001, "bytes": 1_001_000, "per_month": round(price, 4)}
    assert found["stored_per_month"] == round(6.0 + 7.0 + price, 4)
    assert found["dollars"] == found["pods_dollars"] + found["serverless_dollars"] + found["volumes_dollars"]
    assert r2.secret_key not in out + err
    assert "bucket, 1 MB in 1,001 objects" in " ".join(operator("cost")[1].split())


def test_a_bucket_that_refuses_is_named_and_the_rest_is_shown(operator: Operator, r2: R2) -> None:
    operator.more = r2.environ()
    r2.may_read = False
    code, out, _ = operator("cost")
    assert code == 1
    assert "The bucket could not be read" in out and "volume" in out
    r2.may_read = True
    r2.faults = [Fault(status=503, code="SlowDown", times=2)]
    assert operator("cost")[0] == 0, "a busy bucket is asked again"


@pytest.mark.parametrize("days", ["0", "-1", "many"])
def test_days_that_are_none_are_refused(operator: Operator, days: str) -> None:
    assert operator("cost", f"--days={days}")[0] == 2
