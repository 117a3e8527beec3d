"""Makes small real wheels and source packages for tests."""

from __future__ import annotations

import io
import tarfile
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path


def make_wheel(
    folder: Path, name: str, files: Mapping[str, str], method: int = zipfile.ZIP_STORED, version: str = "1.0"
) -> Path:
    """A wheel `name`-`version` of `files`, packed by `method`."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", method) as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: toy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        rows = []
        for file, text in files.items():
            digest = urlsafe_b64encode(sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{file},sha256={digest},\n")
        archive.writestr(f"{info}/RECORD", "".join(rows))
    return path


def make_sdist(folder: Path, name: str, files: Mapping[str, str]) -> Path:
    """A source package `name`-1.0.tar.gz of `files`."""
    path = folder / f"{name}-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, text in files.items():
            info = tarfile.TarInfo(f"{name}-1.0/{file}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path
