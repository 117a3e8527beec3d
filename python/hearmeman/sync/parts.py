"""`hearmeman sync parts`: half-sent large files, which the bucket keeps and charges for; `--abort` ends them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from hearmeman.settings import Settings
from hearmeman.sync.bucket import Bucket
from hearmeman.sync.explain import explained
from hearmeman.sync.journal import glance
from hearmeman.terminal import age, count, size, table


@dataclass(frozen=True)
class Half:
    """A multipart upload that is not complete."""

    key: str
    """Where its object would lie."""
    upload_id: str
    """The bucket's name for it."""
    begun: float
    """Unix seconds."""
    parts: int
    """Parts that the bucket has."""
    bytes: int
    """Their bytes."""
    file: str
    """The file that this pod's sync goes on with; empty if it knows nothing of this upload."""


def show(settings: Settings, everywhere: bool, abort: bool, older_than_hours: float, as_json: bool) -> int:
    """List what is half sent, below R2_PREFIX or `everywhere` in the bucket, and end what nobody goes on with.

    Raises:
        BucketError: the bucket cannot be asked.
    """
    bucket = Bucket(settings, 4)
    now = time.time()
    prefix = "" if everywhere else f"{settings.r2_prefix}/"
    # Some servers answer so where there is no upload at all.
    found: list[Half] = []
    with explained(bucket), contextlib.suppress(bucket.client.exceptions.NoSuchUpload):
        found = sorted(_open(bucket, prefix, _known(settings)), key=lambda half: half.begun)
    ended = [half for half in found if abort and not half.file and now - half.begun >= older_than_hours * 3600]
    for half in ended:
        with explained(bucket, half.key):
            bucket.abort(half.key, half.upload_id)
    if as_json:
        rows = [{**asdict(half), "aborted": half in ended} for half in found]
        print(
            json.dumps({"bucket": bucket.name, "endpoint": bucket.endpoint, "prefix": prefix, "open": rows}, indent=2)
        )
    else:
        print("\n".join(lines(found, ended, abort, older_than_hours, now)))
    return 0


def lines(found: list[Half], ended: list[Half], abort: bool, hours: float, now: float) -> list[str]:
    """Render the uploads for a person at `now` (Unix seconds)."""
    if not found:
        return ["nothing is half sent"]
    rows = [
        (half.key, size(half.bytes), count(half.parts, "part"), age(now - half.begun), _note(half, ended, abort, hours))
        for half in found
    ]
    shown = table(rows, right=(1, 2), wraps=(0, -1))
    kept = [half for half in found if half not in ended and not half.file]
    if kept and not abort:
        shown.append(
            "To abort those that nobody is resuming: hearmeman sync parts --abort. A pod that is still sending "
            "one would have to start that file over, so only those older than a day are aborted; --older-than "
            "HOURS changes that."
        )
    return shown


def _note(half: Half, ended: list[Half], abort: bool, hours: float) -> str:
    if half in ended:
        return "ended"
    if half.file:
        return f"this pod is resuming it: {half.file}"
    return f"kept: started less than {hours:g} h ago" if abort else ""


def _open(bucket: Bucket, prefix: str, known: Mapping[str, str]) -> Iterator[Half]:
    client = bucket.client
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket.name, Prefix=prefix):
        for upload in page.get("Uploads", []):
            key, upload_id = upload["Key"], upload["UploadId"]
            parts = 0
            total = 0
            with contextlib.suppress(client.exceptions.NoSuchUpload):  # It was completed since the list was made.
                for more in client.get_paginator("list_parts").paginate(
                    Bucket=bucket.name, Key=key, UploadId=upload_id
                ):
                    parts += len(more.get("Parts", []))
                    total += sum(part["Size"] for part in more.get("Parts", []))
                yield Half(key, upload_id, upload["Initiated"].timestamp(), parts, total, known.get(upload_id, ""))


def _known(settings: Settings) -> dict[str, str]:
    """Read upload id -> file from this pod's journal."""
    return glance(settings, lambda journal: {upload.upload_id: upload.path for upload in journal.open_uploads()}, {})
