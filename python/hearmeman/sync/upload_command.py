"""`hearmeman upload`: upload files and folders once, or test the bucket."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearmeman.errors import HearmemanError, PartlyDoneError, UsageError
from hearmeman.terminal import Bar, bars

if TYPE_CHECKING:
    from hearmeman.sync.bucket import Bucket
    from hearmeman.sync.tree import Names

ATTEMPTS = 3
LOOK_SECONDS = 0.2
"""How long a signal may go unheard."""
_PASSING = ("slow-down", "server", "connection", "unreachable", "upload-lost")


class UploadError(HearmemanError):
    """Nothing was uploaded."""


class UploadStoppedError(HearmemanError):
    """A signal ended it."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name}: the files named above are uploaded, the others are not, and "
            "nothing half sent is left in the bucket; run it again to send the rest"
        )
        self.exit_code = 128 + number


@dataclass(frozen=True)
class Item:
    """One file to upload."""

    path: Path
    """As it is shown."""
    root: Path
    """The folder that its key is relative to, without links."""
    relative: str
    """Its path below `root`."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman upload`."""
    parser.epilog = (
        "R2_ENDPOINT, R2_BUCKET, R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY name the destination. A file in the "
        "output folder "
        "gets the key that the sync gives it; of a folder, the files with one of SYNC_EXTENSIONS are uploaded. Exits "
        "with 0, with 3 if some files failed, with 1 if all did."
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="a file or folder to upload")
    parser.add_argument("--prefix", help="first part of the keys; default R2_PREFIX")
    parser.add_argument(
        "--test", action="store_true", help="write, look up, read and remove a small object; say what failed"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Upload each file; 3 when some failed."""
    if not args.files and not args.test:
        raise UsageError("name at least one file or folder, or --test")
    from hearmeman.settings import load
    from hearmeman.settings.values import prefix_problem
    from hearmeman.sync.bucket import Bucket
    from hearmeman.sync.tree import names
    from hearmeman.sync.upload import PARTS_AT_ONCE

    settings = load(environ)
    prefix: str = settings.r2_prefix if args.prefix is None else args.prefix.strip("/")
    if problem := prefix_problem(prefix):
        raise UsageError(f"--prefix {args.prefix!r} {problem}: nothing was uploaded")
    items = items_of(args.files, Path(settings.output_path).resolve(), names(settings.sync_extensions))
    bucket = Bucket(settings, PARTS_AT_ONCE)
    if args.test:
        from hearmeman.sync import bucket_test

        bucket_test.test(bucket, prefix, args.json)
    if not items:
        return 0
    rows = _until_a_signal(lambda stopped: _upload_all(bucket, prefix, items, stopped, args.json))
    failed = [row for row in rows if "error" in row]
    if failed:
        text = "\n".join(f"  {row['file']}: {row['error']}" for row in failed)
        kind = UploadError if len(failed) == len(rows) else PartlyDoneError
        raise kind(f"{len(failed)} of {len(rows)} files were not uploaded:\n{text}")
    return 0


def _until_a_signal(work: Callable[[threading.Event], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Give what `work` does, which ends early once its event is set: at the first signal.

    It runs in a thread of its own, and the handler does no more than set the event: an exception that a handler raises in
    the middle of `concurrent.futures` leaves locks held for ever.

    Raises:
        UploadStoppedError: a signal ended it.
    """
    stopped = threading.Event()
    caught: list[int] = []

    def stop(number: int, frame: object) -> None:
        caught.append(number)
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="upload") as thread:
            running = thread.submit(work, stopped)
            # Not for ever at once: Python hears of a signal that comes just before such a wait when the wait is over.
            while not wait([running], LOOK_SECONDS).done:
                pass
            rows = running.result()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        raise UploadStoppedError(caught[0])
    return rows


def items_of(paths: list[Path], output: Path, names: Names) -> list[Item]:
    """Find the files that `paths` stand for: each file itself, of each folder its outputs.

    Raises:
        UsageError: something is not there, is no file, or is a folder without outputs.
    """
    from hearmeman.sync.tree import outputs

    problems, found = [], []
    for path in paths:
        real = Path(os.path.realpath(path))
        # An output gets the key that the daemon gives it.
        root = output if real == output or real.is_relative_to(output) else real.parent
        if real.is_dir():
            inside = [Item(path / name, root, str((real / name).relative_to(root))) for name in outputs(real, names)]
            wanted = ",".join(sorted(names.extensions))
            problems += [] if inside else [f"{path} holds no file with one of the extensions {wanted}"]
            found += inside
        elif real.is_file():
            found.append(Item(path, root, str(real.relative_to(root))))
        else:
            problems.append(f"{path}: {'neither a file nor a folder' if real.exists() else 'no such file'}")
    if problems:
        raise UsageError(f"{'; '.join(problems)}: nothing was uploaded")
    return found


def _upload_all(
    bucket: Bucket, prefix: str, items: list[Item], stopped: threading.Event, as_json: bool
) -> list[dict[str, Any]]:
    from hearmeman.sync.multipart import FileChangedError
    from hearmeman.sync.upload import Uploader

    rows = []
    uploaders: dict[Path, Uploader] = {}
    shown = None if as_json else bars(sys.stderr)
    with shown or contextlib.nullcontext():
        for item in items:
            if item.root not in uploaders:
                uploaders[item.root] = Uploader(bucket, prefix, item.root)
            sent, total = 0, _size(item.path)

            def draw(more: int, item: Item = item, total: int | None = total) -> None:
                nonlocal sent
                sent += more
                if stopped.is_set():
                    raise FileChangedError("stopped")  # What is being read or sent need not come to its end.
                if shown is not None:
                    shown.draw({str(item.path): Bar(item.path.name, sent, total)})

            row = _send(uploaders[item.root], item, draw, stopped)
            rows.append(row)
            if "key" in row and not as_json:
                there = " (already there)" if row["was_there"] else ""
                print(f"{item.path} -> s3://{bucket.name}/{row['key']}{there}", flush=True)
            if stopped.is_set():
                return rows
    if as_json:
        print(json.dumps(rows, indent=2))
    return rows


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None  # It went while an earlier one was sent; the upload says so.


def _send(uploader: Any, item: Item, progress: Callable[[int], None], stopped: threading.Event) -> dict[str, Any]:
    from hearmeman.sync.failures import classify
    from hearmeman.sync.multipart import FileChangedError
    from hearmeman.sync.patience import pause_after
    from hearmeman.sync.tree import look

    row: dict[str, Any] = {"file": str(item.path)}
    why = ""
    done = 0

    def sent_more(size: int) -> None:
        nonlocal done
        done += size
        progress(size)

    for attempt in range(1, ATTEMPTS + 1):
        try:
            sent_more(-done)
            seen = look(item.root, item.relative)
            if seen is None:
                return {**row, "error": "it is gone"}
            sent = uploader.upload(item.relative, seen, sent_more)
            return {**row, "key": sent.key, "size": sent.size, "sha256": sent.sha256, "was_there": sent.was_there}
        except FileNotFoundError:
            return {**row, "error": "it is gone"}
        except Exception as error:
            try:
                failure = classify(error, uploader.bucket.endpoint, uploader.bucket.name)
            except FileChangedError:
                why = "it is being written to: try again when it is finished"
            else:
                why = failure.sentence
                if failure.kind not in _PASSING:
                    break
        if stopped.wait(pause_after(attempt) if attempt < ATTEMPTS else 0):
            break
    return {**row, "error": why}
