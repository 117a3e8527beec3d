"""The workspace in the bucket: files named by their content, and saves that are numbered and never overwritten."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from hearmeman.sync.bucket import Bucket, TakenError
from hearmeman.sync.multipart import MULTIPART_ABOVE, PART_SIZE
from hearmeman.workspace.contents import DamagedError, Save, SaveError, dump, parse

LARGEST_SAVE = 64 * 1024**2
"""Bytes of the largest list that is read."""
# R2 wants parts of one size; s3transfer ends a multipart upload that fails.
_TRANSFER = TransferConfig(multipart_threshold=MULTIPART_ABOVE, multipart_chunksize=PART_SIZE, max_concurrency=4)


@dataclass(frozen=True)
class Kept:
    """A save as the bucket lists it."""

    number: int
    """Its number."""
    at: float
    """Unix seconds when the bucket took it."""


@dataclass(frozen=True)
class Store:
    """One workspace in one bucket."""

    bucket: Bucket
    """Where it lies."""
    prefix: str
    """First part of its keys, such as outputs/workspace."""

    def has(self, sha256: str, size: int) -> bool:
        """Tell whether a file of this content is there."""
        found = self.bucket.head(self._file(sha256), strict=True)
        return found is not None and found.size == size

    def send(self, sha256: str, file: IO[bytes], progress: Callable[[int], None]) -> None:
        """Bring a file there that is not; `file` holds what `sha256` says. SYNC_BANDWIDTH holds for it too."""

        def moved(size: int) -> None:
            self.bucket.bandwidth.wait(size)
            progress(size)

        self.bucket.client.upload_fileobj(
            file,
            self.bucket.name,
            self._file(sha256),
            ExtraArgs={"Metadata": {"sha256": sha256}},
            Callback=moved,
            Config=_TRANSFER,
        )

    def fetch(self, sha256: str, size: int, descriptor: int, progress: Callable[[int], None]) -> None:
        """Write a file's content to an open, empty file.

        Raises:
            SaveError: the bucket does not have it, or holds something else there.
        """
        key = self._file(sha256)
        with os.fdopen(os.dup(descriptor), "w+b") as file:
            try:
                self.bucket.client.download_fileobj(self.bucket.name, key, file, Callback=progress, Config=_TRANSFER)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey"):
                    raise SaveError(f"{key} is missing in the bucket: restore an earlier save with --from") from error
                raise
            file.flush()
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256 or file.tell() != size:
                raise SaveError(f"the content of {key} does not match its name: delete that object, and save again")

    def saves(self) -> list[Kept]:
        """List the saves, oldest first."""
        found = []
        pages = self.bucket.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket.name, Prefix=f"{self.prefix}/saves/"
        )
        for page in pages:
            for item in page.get("Contents", []):
                name = item["Key"].rpartition("/")[2].removesuffix(".json")
                if name.isdecimal() and item["Key"] == self._save(int(name)):
                    found.append(Kept(int(name), item["LastModified"].timestamp()))
        return sorted(found, key=lambda kept: kept.number)

    def read(self, number: int) -> Save:
        """Read one save.

        Raises:
            SaveError: it is not there or cannot be used.
        """
        key = self._save(number)
        try:
            answer = self.bucket.client.get_object(Bucket=self.bucket.name, Key=key)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "NoSuchKey":
                raise SaveError(f"there is no save {number}: see `hearmeman workspace list`") from error
            raise
        with answer["Body"] as body:
            content = body.read(LARGEST_SAVE + 1)
        if len(content) > LARGEST_SAVE:
            raise DamagedError(f"{key} is larger than any list of files: it is not a save of a workspace")
        found = parse(content, key)
        if found.number != number:
            raise DamagedError(f"{key} says that it is save {found.number}: it was copied or renamed by hand")
        return found

    def latest(self) -> tuple[Save, int]:
        """Read the newest save that is whole, the empty one where there is none; and give the number for the next.

        Raises:
            SaveError: a later version of hearmeman made it.
        """
        kept = self.saves()
        for one in reversed(kept):
            with contextlib.suppress(DamagedError):
                return self.read(one.number), kept[-1].number + 1
        return Save(), kept[-1].number + 1 if kept else 1

    def put(self, save: Save) -> bool:
        """Put a save where none of its number is; False if another pod was faster.

        Where the server does not heed the condition, what lies there afterwards decides.
        """
        key = self._save(save.number)
        with contextlib.suppress(TakenError):
            self.bucket.put(key, dump(save), {})
        return self.read(save.number).id == save.id

    def forget(self, number: int) -> None:
        """Remove one save; the files that it names stay."""
        self.bucket.delete(self._save(number))

    def files(self) -> list[tuple[str, int, float]]:
        """List (sha256, bytes, Unix seconds) of every file."""
        pages = self.bucket.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket.name, Prefix=f"{self.prefix}/files/"
        )
        return [
            (item["Key"].rpartition("/")[2], item["Size"], item["LastModified"].timestamp())
            for page in pages
            for item in page.get("Contents", [])
        ]

    def forget_file(self, sha256: str) -> None:
        """Remove one file."""
        self.bucket.delete(self._file(sha256))

    def _file(self, sha256: str) -> str:
        return f"{self.prefix}/files/{sha256}"

    def _save(self, number: int) -> str:
        return f"{self.prefix}/saves/{number:08d}.json"
