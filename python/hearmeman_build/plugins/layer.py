"""Writes a plan of files as one reproducible zstd layer, and the `layers.json` that describes it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import queue
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from hearmeman_build.errors import BuildError
from hearmeman_build.plugins import ahead

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+zstd"
MTIME = 1
_BLOCK = 1 << 20
"""Bytes that go to the compressor at once."""
_TYPES = {"dir": tarfile.DIRTYPE, "file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}


class Content(Protocol):
    """Where a file's bytes come from."""

    def read(self, size: int = -1, /) -> bytes:
        """About the next `size` bytes, or all that is left; b"" at the end."""


@dataclass(frozen=True)
class Entry:
    """One member of the layer."""

    path: str
    """Path without a leading slash."""
    kind: str
    """"dir", "file", "link" (symbolic) or "hard"."""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    target: str = ""
    """Where a link leads; for "hard" a path in this layer."""
    size: int = 0
    """Bytes of a file."""
    open: Callable[[], Content] | None = None
    """Opens a file's content."""
    make: Callable[[], bytes | None] | None = None
    """Makes a file's content, in a process of its own beside the compressor's work; None leaves the file out."""


def file_entry(path: str, content: bytes, mode: int = 0o644) -> Entry:
    """A file whose bytes are at hand."""
    return Entry(path, "file", mode, size=len(content), open=lambda: io.BytesIO(content))


def link_entry(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, "link", 0o777, target=target)


def dir_entry(path: str, mode: int = 0o755) -> Entry:
    """A directory of root's."""
    return Entry(path, "dir", mode)


def with_parents(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Add every missing parent directory, 755, root's."""
    full = dict(entries)
    for path in entries:
        parent = path.rpartition("/")[0]
        while parent and parent not in full:
            full[parent] = dir_entry(parent)
            parent = parent.rpartition("/")[0]
    return full


def ordered(entries: Iterable[Entry]) -> list[Entry]:
    """By path; hard links last, so that their targets come before them."""
    return sorted(entries, key=lambda e: (e.kind == "hard", e.path))


class _Sink:
    """Hands blocks on to the compressor and to a hash, each in a thread of its own: a layer is some gigabytes.

    The queues are long enough that the compressor goes on while a block is slow to come.
    """

    def __init__(self, compressor: IO[bytes]) -> None:
        self.size = 0
        self._compressor = compressor
        self._hash = hashlib.sha256()
        self._small: list[bytes] = []
        self._waiting = 0
        self._queues = [_Consumer(self._hash.update), _Consumer(self._compress)]

    def _compress(self, data: bytes) -> None:
        # A compressor that has ended is reported by its exit code.
        with contextlib.suppress(BrokenPipeError):
            self._compressor.write(data)

    def write(self, data: bytes) -> None:
        """Take bytes; small pieces are handed on together."""
        self._small.append(data)
        self._waiting += len(data)
        if self._waiting >= _BLOCK:
            self._flush()

    def _flush(self) -> None:
        block = b"".join(self._small)
        self.size += len(block)
        self._small, self._waiting = [], 0
        for consumer in self._queues:
            consumer.put(block)

    def end(self) -> str:
        """Hand on what is left; the sha256 of everything written."""
        self._flush()
        for consumer in self._queues:
            consumer.end()
        return self._hash.hexdigest()


class _Consumer:
    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take
        self._queue: queue.Queue[bytes | None] = queue.Queue(32)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            self._take(data)

    def put(self, data: bytes) -> None:
        self._queue.put(data)

    def end(self) -> None:
        self._queue.put(None)
        self._thread.join()


def write_tar(entries: Iterable[Entry], sink: _Sink) -> None:
    """Write `entries`, in their order, as one pax tar: mtime 1, numeric owners, no names."""
    length = 0

    def write(data: bytes) -> None:
        nonlocal length
        length += len(data)
        sink.write(data)

    for entry in entries:
        write(_header(entry).tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        if entry.kind == "file":
            _write_content(entry, write)
            write(bytes(-length % tarfile.BLOCKSIZE))
    write(bytes(2 * tarfile.BLOCKSIZE))
    write(bytes(-length % tarfile.RECORDSIZE))


def _header(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.path)
    info.mtime, info.mode, info.uid, info.gid = MTIME, entry.mode, entry.uid, entry.gid
    info.type = _TYPES[entry.kind]
    info.linkname = entry.target
    info.size = entry.size if entry.kind == "file" else 0
    return info


def _write_content(entry: Entry, write: Callable[[bytes], None]) -> None:
    if entry.open is None:
        raise BuildError(f"{entry.path}: a file without content in the layer's plan")
    source, left = entry.open(), entry.size
    while left > 0 and (data := source.read(min(left, _BLOCK))):
        write(data)
        left -= len(data)
    if left != 0:
        raise BuildError(
            f"{entry.path} has {entry.size - left} bytes, its plan says {entry.size}: its source is damaged"
        )


def _with_contents(entries: Sequence[Entry], workers: int) -> Iterator[Entry]:
    """`entries` with the contents that are made, which processes of their own begin to make now."""
    made = ahead.results([entry.make for entry in entries if entry.make], workers)

    def members() -> Iterator[Entry]:
        for entry in entries:
            if entry.make is None:
                yield entry
            elif (content := next(made)) is not None:
                yield file_entry(entry.path, content, entry.mode)

    return members()


def write_layer(entries: Mapping[str, Entry], out: Path, created_by: str, zstd: list[str], level: int = 10) -> None:
    """Write `out/layer.tar.zst` and `out/layers.json` (nix2container's form of a ready blob).

    `zstd` is the compressor's command. It reads from a pipe: from a file its header would differ.
    """
    out.mkdir(parents=True)
    blob = out / "layer.tar.zst"
    # 0 is Nix's word for all.
    cores = int(os.environ.get("NIX_BUILD_CORES", "1")) or os.cpu_count() or 1
    members = _with_contents(ordered(with_parents(entries).values()), cores)
    with blob.open("wb") as target:
        command = [*zstd, f"-{level}", f"-T{cores}", "-q", "-c"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=target, env={}, bufsize=0, pipesize=_BLOCK)
        if child.stdin is None:
            raise BuildError("zstd could not be started")
        sink = _Sink(child.stdin)
        write_tar(members, sink)
        diff_id = sink.end()
        child.stdin.close()
        if child.wait() != 0:
            raise BuildError(
                f"zstd ended with {child.returncode} while writing the layer of {created_by}: is the disk full?"
            )
    with blob.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    described = [
        {
            "digest": f"sha256:{digest}",
            "size": blob.stat().st_size,
            "diff_ids": f"sha256:{diff_id}",
            "unpacked": sink.size,
            "mediatype": MEDIA_TYPE,
            "layer-path": str(blob),
            "History": {"created_by": created_by},
        }
    ]
    (out / "layers.json").write_text(json.dumps(described, indent=1) + "\n")
