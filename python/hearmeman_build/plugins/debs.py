"""Reads Debian packages: the ar container, the control stanza and the data tar."""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import IO

from hearmeman_build.errors import BuildError


def members(deb: Path) -> dict[str, bytes]:
    """The ar members of a .deb by name, e.g. `control.tar.xz` and `data.tar.xz`.

    Raises:
        BuildError: the file is not a .deb, or it ends before its members do.
    """
    data = deb.read_bytes()
    if data[:8] != b"!<arch>\n":
        raise BuildError(f"{deb.name} is not a Debian package: run `make prefetch`, which fetches damaged files again")
    found: dict[str, bytes] = {}
    at = 8
    while at < len(data):
        header = data[at : at + 60]
        if len(header) < 60 or header[58:] != b"`\n":
            raise BuildError(_truncated(deb))
        size = int(header[48:58])
        body = data[at + 60 : at + 60 + size]
        if len(body) != size:
            raise BuildError(_truncated(deb))
        found[header[:16].decode().strip().rstrip("/")] = body
        at += 60 + size + size % 2
    if not any(name.startswith("data.tar") for name in found):
        raise BuildError(_truncated(deb))
    return found


def _truncated(deb: Path) -> str:
    return f"{deb.name} is truncated: run `make prefetch`, which fetches damaged files again"


def unpack(deb: Path, part: str, zstd: list[str], spool: IO[bytes]) -> None:
    """Decompress member `part` ("data" or "control") of `deb` into `spool`."""
    name, body = next((n, b) for n, b in members(deb).items() if n.startswith(f"{part}.tar"))
    try:
        if name.endswith(".zst"):
            done = subprocess.run([*zstd, "-d", "-q", "-c"], input=body, stdout=subprocess.PIPE, check=True)
            spool.write(done.stdout)
            return
        shutil.copyfileobj(_opened(name, body), spool, 1 << 20)
    except (lzma.LZMAError, OSError, EOFError, subprocess.CalledProcessError) as error:
        raise BuildError(f"{deb.name}: {name} does not decompress ({error}): {_truncated(deb)}") from error


def _opened(name: str, body: bytes) -> io.BufferedIOBase:
    if name.endswith(".xz"):
        return lzma.LZMAFile(io.BytesIO(body))
    if name.endswith(".gz"):
        return gzip.GzipFile(fileobj=io.BytesIO(body))
    return io.BytesIO(body)


def control(deb: Path, zstd: list[str]) -> dict[str, bytes]:
    """The control member's files by name: `control`, `conffiles`, ..."""
    spool = io.BytesIO()
    unpack(deb, "control", zstd, spool)
    spool.seek(0)
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=spool, mode="r:") as tar:
        for info in tar:
            content = tar.extractfile(info) if info.isreg() else None
            if content is not None:
                files[info.name.removeprefix("./")] = content.read()
    return files
