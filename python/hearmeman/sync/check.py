"""`hearmeman sync check`: compares the output folder with the bucket, by size and hash; changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from hearmeman.settings import Settings
from hearmeman.sync.bucket import Bucket
from hearmeman.sync.explain import explained
from hearmeman.sync.journal import Journal, Record, glance
from hearmeman.sync.keys import object_key, with_content
from hearmeman.sync.proof import Digests, difference, digests
from hearmeman.sync.tree import Seen, look, names, outputs, seen
from hearmeman.terminal import Bar, bars, count, size

AT_ONCE = 8
MOST_SHOWN = 50
"""Lines of differences that are printed; --json has all."""


@dataclass(frozen=True)
class Found:
    """What was found of one file."""

    file: str
    """Relative to the output folder."""
    verdict: str
    """same, missing, differs or unread."""
    key: str
    """Where its object lies, or would lie."""
    bytes: int
    """The file's size."""
    why: str = ""
    """More about a difference."""


@dataclass(frozen=True)
class Check:
    """What every file's comparison has in common."""

    bucket: Bucket
    """Where the objects lie."""
    prefix: str
    """First part of their keys."""
    root: Path
    """The output folder, without links."""
    size_only: bool
    """Whether nothing is read, so that other content of the same size goes unnoticed."""
    known: Mapping[str, Record]
    """What the pod's journal says of files, where there is one: a touched file keeps its older key."""
    progress: Callable[[int], None] = lambda read: None
    """Called with bytes that were read."""

    def one(self, relative: str) -> Found:
        """Compare one file.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: the bucket cannot be asked.
        """
        try:
            status = look(self.root, relative)
            if status is None:
                return Found(relative, "unread", "", 0, "it is gone")
            local = None if self.size_only else self._read(relative, status)
        except OSError as error:
            return Found(relative, "unread", "", 0, error.strerror or str(error))
        if local is not None and local.size != status.size:
            return Found(relative, "unread", "", status.size, "it is being written to")
        return self._compare(relative, status, local)

    def _read(self, relative: str, status: Seen) -> Digests:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self.root / relative, flags)
        try:
            found = digests(descriptor, status.size, self.progress)
            changed = seen(os.fstat(descriptor)) != status
        finally:
            os.close(descriptor)
        return Digests(-1, "", "") if changed else found

    def _compare(self, relative: str, status: Seen, local: Digests | None) -> Found:
        plain = object_key(self.prefix, relative, status.mtime_ns)
        before = self.known.get(relative)
        candidates = [before.key] if before is not None else []
        candidates.append(plain)
        sha256 = local.sha256 if local else before.sha256 if before else ""
        candidates += [with_content(plain, sha256, digits) for digits in (12, 64)] if sha256 else []
        found = Found(relative, "missing", plain, status.size)
        for key in dict.fromkeys(candidates):
            stored = self.bucket.head(key, strict=True)
            if stored is None:
                continue
            why = difference(stored, local) if local else self._size(stored.size, status.size)
            if not why:
                return Found(relative, "same", key, status.size)
            if found.verdict == "missing":
                found = Found(relative, "differs", key, status.size, why)
        return found

    @staticmethod
    def _size(stored: int, local: int) -> str:
        return "" if stored == local else f"the object has {stored} bytes, the file {local}"


def show(settings: Settings, size_only: bool, as_json: bool) -> int:
    """Compare every output and print what differs; 1 if anything does.

    Raises:
        BucketError: the bucket cannot be asked.
    """
    root = Path(settings.output_path).resolve()
    bucket = Bucket(settings, AT_ONCE)
    paths = list(outputs(root, names(settings.sync_extensions)))
    with _progress(root, paths, shown=not as_json and not size_only) as progress, explained(bucket):
        check = Check(bucket, settings.r2_prefix, root, size_only, _known(settings), progress)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = list(pool.map(check.one, paths))
    if as_json:
        by_verdict = {verdict: [row for row in found if row.verdict == verdict] for verdict in ("same", *_BAD)}
        told = {
            "folder": str(root),
            "bucket": bucket.name,
            "endpoint": bucket.endpoint,
            "prefix": settings.r2_prefix,
            "same_files": len(by_verdict["same"]),
            "same_bytes": sum(row.bytes for row in by_verdict["same"]),
            **{verdict: [asdict(row) for row in by_verdict[verdict]] for verdict in _BAD},
        }
        print(json.dumps(told, indent=2))
    else:
        print("\n".join(lines(found, f"s3://{bucket.name}/{settings.r2_prefix}", size_only)))
    return 1 if any(row.verdict != "same" for row in found) else 0


_BAD = {
    "missing": "in the folder, not in the bucket",
    "differs": "in the bucket with other content",
    "unread": "not compared",
}


def lines(found: list[Found], where: str, size_only: bool = False) -> list[str]:
    """Render the result for a person."""
    same = [row for row in found if row.verdict == "same"]
    how = "size" if size_only else "size and hash"
    shown = [f"{count(len(same), 'file')}, {size(sum(row.bytes for row in same))}, are in {where} by {how}"]
    for verdict, words in _BAD.items():
        rows = [row for row in found if row.verdict == verdict]
        if rows:
            shown.append(f"{count(len(rows), 'file')} {words}:")
            shown += [f"  {row.file}" + (f": {row.why}" if row.why else "") for row in rows[:MOST_SHOWN]]
            shown += [f"  and {len(rows) - MOST_SHOWN} more; --json names all"] if len(rows) > MOST_SHOWN else []
    return shown


def _known(settings: Settings) -> dict[str, Record]:
    """Read file -> record from this pod's journal. Without it only a touched file is looked for under its newer date alone."""

    def records(journal: Journal) -> dict[str, Record]:
        found = ((name, journal.record_of(name)) for name in journal.done())
        return {name: record for name, record in found if record is not None}

    return glance(settings, records, {})


@contextlib.contextmanager
def _progress(root: Path, paths: list[str], shown: bool) -> Iterator[Callable[[int], None]]:
    drawn = bars(sys.stderr) if shown else None
    if drawn is None:
        yield lambda read: None
        return
    total, done, lock = sum(status.size for path in paths if (status := look(root, path))), 0, threading.Lock()
    with drawn:

        def progress(read: int) -> None:
            nonlocal done
            with lock:
                done += read
                drawn.draw({"read": Bar("reading", done, total)})

        yield progress
