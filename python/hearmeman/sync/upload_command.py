"""`hearmeman upload`: upload files once, or test the bucket."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearmeman.errors import HearmemanError, PartlyDoneError, UsageError
from hearmeman.terminal import Bar, bars

if TYPE_CHECKING:
    from hearmeman.sync.bucket import Bucket

ATTEMPTS = 3


class UploadError(HearmemanError):
    """Nothing was uploaded."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman upload`."""
    parser.epilog = (
        "R2_ENDPOINT, R2_BUCKET, R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY say where to. A file in the output folder "
        "gets the key that the sync gives it. Ends with 0, with 3 if some files failed, with 1 if all did."
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="a file to upload")
    parser.add_argument("--prefix", help="first part of the keys; default R2_PREFIX")
    parser.add_argument("--test", action="store_true", help="put, look up and read a small object, and say what failed")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Upload each file; 3 when some failed."""
    if not args.files and not args.test:
        raise UsageError("name at least one file, or --test")
    from hearmeman.settings import load
    from hearmeman.sync.bucket import Bucket
    from hearmeman.sync.pod_environment import with_pod_keys
    from hearmeman.sync.upload import PARTS_AT_ONCE

    settings = load(with_pod_keys(environ))
    prefix = (settings.r2_prefix if args.prefix is None else args.prefix).strip("/")
    if not 0 < len(prefix.encode(errors="surrogateescape")) <= 100:
        raise UsageError("--prefix must have from 1 to 100 bytes")
    bucket = Bucket(settings, PARTS_AT_ONCE)
    missing = [str(path) for path in args.files if not path.is_file()]
    if missing:
        raise UsageError(f"no such file: {', '.join(missing)}: nothing was uploaded")
    if args.test:
        _test(bucket, prefix, args.json)
    if not args.files:
        return 0
    rows = _upload_all(bucket, prefix, args.files, Path(settings.output_path).resolve(), args.json)
    failed = [row for row in rows if "error" in row]
    if failed:
        text = "\n".join(f"  {row['file']}: {row['error']}" for row in failed)
        kind = UploadError if len(failed) == len(rows) else PartlyDoneError
        raise kind(f"{len(failed)} of {len(rows)} files were not uploaded:\n{text}")
    return 0


def _upload_all(bucket: Bucket, prefix: str, files: list[Path], output: Path, as_json: bool) -> list[dict[str, Any]]:
    rows = []
    shown = None if as_json else bars(sys.stderr)
    with shown or contextlib.nullcontext():
        for path in files:
            sent, total = 0, path.stat().st_size

            def draw(more: int, path: Path = path, total: int = total) -> None:
                nonlocal sent
                sent += more
                if shown is not None:
                    shown.draw({str(path): Bar(path.name, sent, total)})

            row = _send(bucket, prefix, path, output, draw)
            rows.append(row)
            if "key" in row and not as_json:
                there = " (was there)" if row["was_there"] else ""
                print(f"{path} -> s3://{bucket.name}/{row['key']}{there}", flush=True)
    if as_json:
        print(json.dumps(rows, indent=2))
    return rows


def _send(bucket: Bucket, prefix: str, path: Path, output: Path, progress: Callable[[int], None]) -> dict[str, Any]:
    from hearmeman.sync.failures import classify
    from hearmeman.sync.multipart import FileChangedError
    from hearmeman.sync.patience import pause_after
    from hearmeman.sync.tree import look
    from hearmeman.sync.upload import Uploader

    real = Path(os.path.realpath(path))
    # An output gets the key that the daemon gives it.
    root = output if real.is_relative_to(output) else real.parent
    relative = str(real.relative_to(root))
    uploader = Uploader(bucket, prefix, root)
    row: dict[str, Any] = {"file": str(path)}
    why = ""
    done = 0

    def sent_more(size: int) -> None:
        nonlocal done
        done += size
        progress(size)

    for attempt in range(1, ATTEMPTS + 1):
        sent_more(-done)
        try:
            seen = look(root, relative)
            if seen is None:
                return {**row, "error": "it is gone"}
            sent = uploader.upload(relative, seen, sent_more)
            return {**row, "key": sent.key, "size": sent.size, "sha256": sent.sha256, "was_there": sent.was_there}
        except Exception as error:
            try:
                failure = classify(error, bucket.endpoint, bucket.name)
            except FileChangedError:
                why = "it is being written to: try again when it is finished"
            else:
                why = failure.sentence
                if failure.kind not in ("slow-down", "server", "connection", "unreachable", "upload-lost"):
                    break
        if attempt < ATTEMPTS:
            time.sleep(pause_after(attempt))
    return {**row, "error": why}


def _test(bucket: Bucket, prefix: str, as_json: bool) -> None:
    from hearmeman.sync.failures import classify

    key = f"{prefix}/.hearmeman-test/{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
    content = secrets.token_bytes(64)
    seconds = {}
    for step in ("put", "head", "get"):
        began = time.monotonic()
        try:
            if step == "put":
                bucket.put(key, content, {})
            elif step == "head":
                found = bucket.head(key)
                if found is None or found.size != len(content):
                    raise UploadError(
                        f"head: {key} was put and cannot be looked up: give the token object read and write on "
                        f"{bucket.name}"
                    )
            elif bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read() != content:
                raise UploadError(f"get: {key} holds other bytes than were put: {bucket.endpoint} cannot be trusted")
        except HearmemanError:
            raise
        except Exception as error:
            raise UploadError(f"{step}: {classify(error, bucket.endpoint, bucket.name).sentence}") from error
        seconds[step] = round(time.monotonic() - began, 3)
    if as_json:
        print(json.dumps({"bucket": bucket.name, "endpoint": bucket.endpoint, "key": key, "seconds": seconds}))
    else:
        times = ", ".join(f"{step} {value} s" for step, value in seconds.items())
        print(f"bucket {bucket.name} at {bucket.endpoint} takes uploads: {times}")
    sys.stdout.flush()
