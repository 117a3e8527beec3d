"""What is known of a file on a network volume: a record among the models says its sha256, while size and time are the same.

RunPod's S3 API says nothing of metadata or tags of an object that it would keep, and an ETag is no sha256: so the record is
a file of its own. What a pod has verified on the volume, it has recorded in the same way.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from hearmeman.models.plan import Record

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FOLDER = "ComfyUI/models"
"""Where pods and workers look for models, below the volume's mount."""
_SECOND = 10**9


@dataclass(frozen=True)
class There:
    """A file on the volume, as S3 tells it."""

    size: int
    """Bytes."""
    modified: int
    """Unix seconds of its last change."""


@dataclass(frozen=True)
class Records:
    """The records of one volume."""

    s3: S3Client
    """RunPod's S3 API in the volume's data centre."""
    bucket: str
    """The volume's id."""

    def look(self, to: str) -> There | None:
        """What lies at `to`, a path below the models folder."""
        from botocore.exceptions import ClientError

        try:
            found = self.s3.head_object(Bucket=self.bucket, Key=f"{FOLDER}/{to}")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        return There(int(found["ContentLength"]), int(found["LastModified"].timestamp()))

    def recall(self, to: str, there: There) -> Record | None:
        """The record of `to`, if it is of what lies there now."""
        for name in (_name(to), f".hearmeman/verified/{quote(to, safe='')}.json"):
            record = self._read(f"{FOLDER}/{name}")
            if record and (record.size, record.mtime_ns // _SECOND) == (there.size, there.modified):
                return record
        return None

    def keep(self, to: str, there: There, sha256: str, source: str) -> None:
        """Record the hash of what lies there; `source` is empty where it was there before us."""
        record = Record(there.size, there.modified * _SECOND, sha256, source)
        self.s3.put_object(Bucket=self.bucket, Key=f"{FOLDER}/{_name(to)}", Body=json.dumps(asdict(record)).encode())

    def _read(self, key: str) -> Record | None:
        from botocore.exceptions import ClientError

        try:
            text = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 404):
                return None
            raise
        try:
            found = Record(**json.loads(text))
        except (ValueError, TypeError):
            return None
        return found if isinstance(found.mtime_ns, int) else None


def _name(to: str) -> str:
    # With its folders: RunPod may read a % in a key as the beginning of an encoded character.
    return f".hearmeman/filled/{to}.json"
