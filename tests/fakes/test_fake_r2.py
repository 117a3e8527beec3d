"""The R2 of the tests refuses what R2 refuses, so that passing against it means something."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from fakes.r2 import R2
from hearmeman.sync.client import client_config

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1024**2


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


def connect(r2: R2, config: Config | None = None, **more: str) -> S3Client:
    found: S3Client = boto3.client(
        "s3",
        endpoint_url=r2.url,
        config=config or client_config(2),
        aws_access_key_id=more.get("key", r2.access_key),
        aws_secret_access_key=more.get("secret", r2.secret_key),
    )
    return found


def refused(action: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        action(Bucket=arguments.pop("Bucket", "runpod"), Key=arguments.pop("Key", "a"), **arguments)
    return str(caught.value.response["Error"]["Code"])


def test_keys_are_checked(r2: R2) -> None:
    assert refused(connect(r2, secret="wrong").put_object, Body=b"") == "SignatureDoesNotMatch"
    assert refused(connect(r2, key="wrong").put_object, Body=b"") == "Unauthorized"
    assert refused(connect(r2).put_object, Body=b"", Bucket="other") == "NoSuchBucket"


def test_boto3s_own_checksums_are_refused(r2: R2) -> None:
    ordinary = Config(region_name="auto", s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    assert refused(connect(r2, ordinary).put_object, Body=b"x") == "NotImplemented"
    elsewhere = client_config(1).merge(Config(region_name="eu-west-1"))
    assert refused(connect(r2, elsewhere).put_object, Body=b"x") == "InvalidRegionName"


def test_conditions_and_digests(r2: R2) -> None:
    client = connect(r2)
    client.put_object(Bucket="runpod", Key="a", Body=b"x", IfNoneMatch="*")
    assert refused(client.put_object, Body=b"y", IfNoneMatch="*") == "PreconditionFailed"
    assert refused(client.put_object, Body=b"y", ContentMD5="AAAAAAAAAAAAAAAAAAAAAA==") == "BadDigest"
    assert refused(client.put_object, Body=b"", Key="k" * 1025) == "KeyTooLongError"
    assert refused(client.put_object, Body=b"", Metadata={"a": "x" * 8192}) == "MetadataTooLarge"
    assert r2.contents() == {"a": b"x"}


@pytest.mark.parametrize(
    ("sizes", "code"),
    [
        ((6 * MIB, 5 * MIB, 5 * MIB), "InvalidPart"),
        ((5 * MIB, 6 * MIB), "InvalidPart"),
        ((4 * MIB, 4 * MIB), "EntityTooSmall"),
        ((5 * MIB, 5 * MIB, 1), ""),
        ((1,), ""),
    ],
)
def test_parts_must_be_equal(r2: R2, sizes: tuple[int, ...], code: str) -> None:
    client = connect(r2)
    upload = client.create_multipart_upload(Bucket="runpod", Key="a")["UploadId"]
    etags = [
        client.upload_part(Bucket="runpod", Key="a", UploadId=upload, PartNumber=n, Body=bytes(size))["ETag"]
        for n, size in enumerate(sizes, 1)
    ]
    parts = {"Parts": [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]}
    if code:
        assert refused(client.complete_multipart_upload, UploadId=upload, MultipartUpload=parts) == code
    else:
        client.complete_multipart_upload(Bucket="runpod", Key="a", UploadId=upload, MultipartUpload=parts)  # type: ignore[arg-type]
        assert len(r2.contents()["a"]) == sum(sizes)
        head = client.head_object(Bucket="runpod", Key="a")
        assert head["ETag"].endswith(f'-{len(sizes)}"')
