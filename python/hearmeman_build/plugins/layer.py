"""Writes a plan of files as one reproducible zstd layer, and the `layers.json` that describes it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import queue
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hearmeman_build.errors import BuildError

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+zstd"
MTIME = 1
_BLOCK = 1 << 20
"""Bytes that go to the compressor at once; tarfile copies its buffer with every smaller piece."""


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
    open: Callable[[], IO[bytes]] | None = None
    """Opens a file's content."""
    make: Callable[[], bytes | None] | None = None
    """Makes a file's content when its turn comes, beside the compressor's work; None leaves the file out."""


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


class _Tee(io.RawIOBase):
    """Hands on what is written, and hashes it in a second thread: a layer is some gigabytes."""

    def __init__(self, sink: IO[bytes]) -> None:
        self.sink = sink
        self.size = 0
        self._hash = hashlib.sha256()
        self._queue: queue.Queue[bytes | None] = queue.Queue(8)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            self._hash.update(data)

    def write(self, data: Any) -> int:
        self._queue.put(bytes(data))
        self.sink.write(data)
        self.size += len(data)
        return len(data)

    def digest(self) -> str:
        """The sha256 of everything written."""
        self._queue.put(None)
        self._thread.join()
        return self._hash.hexdigest()


def write_tar(entries: Iterable[Entry], sink: _Tee) -> None:
    """Write `entries`, in their order, as one pax tar: mtime 1, numeric owners, no names."""
    with tarfile.open(mode="w|", fileobj=sink, format=tarfile.PAX_FORMAT, bufsize=_BLOCK) as tar:
        tar.copybufsize = _BLOCK  # type: ignore[attr-defined]
        for entry in entries:
            if entry.make is None:
                tar.addfile(*_member(entry))
            elif (content := entry.make()) is not None:
                tar.addfile(*_member(file_entry(entry.path, content, entry.mode)))


def _member(entry: Entry) -> tuple[tarfile.TarInfo] | tuple[tarfile.TarInfo, IO[bytes]]:
    info = tarfile.TarInfo(entry.path)
    info.mtime, info.mode, info.uid, info.gid = MTIME, entry.mode, entry.uid, entry.gid
    info.type = {"dir": tarfile.DIRTYPE, "file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}[
        entry.kind
    ]
    info.linkname = entry.target
    if entry.kind != "file":
        return (info,)
    if entry.open is None:
        raise BuildError(f"{entry.path}: a file without content in the layer's plan")
    info.size = entry.size
    return info, entry.open()


def write_layer(entries: Mapping[str, Entry], out: Path, created_by: str, zstd: list[str], level: int = 10) -> None:
    """Write `out/layer.tar.zst` and `out/layers.json` (nix2container's form of a ready blob).

    `zstd` is the compressor's command. It reads from a pipe: from a file its header would differ.
    """
    out.mkdir(parents=True)
    blob = out / "layer.tar.zst"
    cores = os.environ.get("NIX_BUILD_CORES", "1")
    with blob.open("wb") as target:
        child = subprocess.Popen(
            [*zstd, f"-{level}", f"-T{cores}", "-q", "-c"], stdin=subprocess.PIPE, stdout=target, env={}
        )
        if child.stdin is None:
            raise BuildError("zstd could not be started")
        tee = _Tee(child.stdin)
        write_tar(ordered(with_parents(entries).values()), tee)
        diff_id = tee.digest()
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
            "unpacked": tee.size,
            "mediatype": MEDIA_TYPE,
            "layer-path": str(blob),
            "History": {"created_by": created_by},
        }
    ]
    (out / "layers.json").write_text(json.dumps(described, indent=1) + "\n")
