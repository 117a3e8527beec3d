"""`hearmeman upload`: upload files once, or test the bucket."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearmeman.errors import HearmemanError, PartlyDoneError, UsageError

if TYPE_CHECKING:
    from hearmeman.sync.bucket import Bucket


class UploadError(HearmemanError):
    """Nothing was uploaded."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman upload`."""
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="a file to upload")
    parser.add_argument("--prefix", help="first part of the keys; default R2_PREFIX")
    parser.add_argument("--test", action="store_true", help="put, look up and read a small object, and say what failed")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Upload each file; 3 when some failed."""
    from hearmeman.settings import load
    from hearmeman.sync.bucket import Bucket

    if not args.files and not args.test:
        raise UsageError("name at least one file, or --test")
    settings = load(environ)
    prefix = (settings.r2_prefix if args.prefix is None else args.prefix).strip("/")
    if not prefix:
        raise UsageError("--prefix must not be empty")
    bucket = Bucket(settings, 4)
    missing = [str(path) for path in args.files if not path.is_file()]
    if missing:
        raise UsageError(f"no such file: {', '.join(missing)}: nothing was uploaded")
    if args.test:
        _test(bucket, prefix, args.json)
    output = Path(settings.output_path).resolve()
    rows = [_send(bucket, prefix, path, output, args.json) for path in args.files]
    if args.json and rows:
        print(json.dumps(rows, indent=2))
    failed = [row for row in rows if "error" in row]
    if failed:
        text = "\n".join(f"  {row['file']}: {row['error']}" for row in failed)
        kind = UploadError if len(failed) == len(rows) else PartlyDoneError
        raise kind(f"{len(failed)} of {len(rows)} files were not uploaded:\n{text}")
    return 0


def _send(bucket: Bucket, prefix: str, path: Path, output: Path, quiet: bool) -> dict[str, Any]:
    from hearmeman.sync.failures import FileChangedError, classify
    from hearmeman.sync.tree import look
    from hearmeman.sync.upload import upload

    real = path.resolve()
    # An output gets the key that the daemon gives it.
    root = output if real.is_relative_to(output) else real.parent
    relative = str(real.relative_to(root))
    row: dict[str, Any] = {"file": str(path)}
    try:
        seen = look(root, relative)
        if seen is None:
            raise FileChangedError
        sent = upload(bucket, prefix, root, relative, seen)
    except FileChangedError:
        return {**row, "error": "it is being written to: try again when it is finished"}
    except Exception as error:
        try:
            return {**row, "error": classify(error, bucket.endpoint, bucket.name).sentence}
        except FileChangedError:
            return {**row, "error": "it is being written to: try again when it is finished"}
    if not quiet:
        print(f"{path} -> s3://{bucket.name}/{sent.key}{' (was there)' if sent.was_there else ''}")
    return {**row, "key": sent.key, "size": sent.size, "sha256": sent.sha256, "was_there": sent.was_there}


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
                        f"{key} was put and is not there: give the token object read and write on {bucket.name}"
                    )
            elif bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read() != content:
                raise UploadError(f"{key} holds other bytes than were put: {bucket.endpoint} cannot be trusted")
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
