"""The models folder: what is in it, what was verified, where files wait until they are whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote, unquote

from hearmeman.models.catalogue import File
from hearmeman.models.plan import Disk, Found, Record


class Store:
    """A models folder. What is ours in it lies in one hidden folder, which ComfyUI does not look into."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.own = root / ".hearmeman"
        self.records = self.own / "verified"
        self.staging = self.own / "staging"
        self.replaced = self.own / "replaced"

    def look(self, files: Iterable[File]) -> Disk:
        """See what is there, by stat alone."""
        found, partial = {}, {}
        for file in files:
            waiting = [path for path in self.staged(file).rglob("*.incomplete") if path.is_file()]
            if waiting:
                partial[file.id] = max(path.stat().st_size for path in waiting)
            with contextlib.suppress(OSError):
                seen = (self.root / file.to).stat()
                found[file.to] = Found(seen.st_size, seen.st_mtime_ns)
        return Disk(found, self._read_records(), partial, self.free_bytes())

    def free_bytes(self) -> int:
        """Bytes that the filesystem has left."""
        there = self.root
        while not there.exists() and there != there.parent:
            there = there.parent
        seen = os.statvfs(there)
        return seen.f_bavail * seen.f_frsize

    def staged(self, file: File) -> Path:
        """Folder of a file's own, where it is until it is whole."""
        return self.staging / file.id

    def accept(self, file: File, at: Path, sha256: str) -> None:
        """Move a verified file to its place, durably, and note that it was verified."""
        target = self.root / file.to
        target.parent.mkdir(parents=True, exist_ok=True)
        _fsync(at)
        if target.exists():
            self._set_aside(target, file)
        at.replace(target)
        _fsync(target.parent)
        shutil.rmtree(self.staged(file), ignore_errors=True)
        self.note(file, sha256, str(file.source))

    def note(self, file: File, sha256: str, source: str) -> None:
        """Note that the file at its place was verified."""
        seen = (self.root / file.to).stat()
        record = Record(seen.st_size, seen.st_mtime_ns, sha256, source)
        write_json(self.records / f"{quote(file.to, safe='')}.json", asdict(record))

    def _set_aside(self, target: Path, file: File) -> None:
        # It may be a person's own file of the same name.
        place = self.replaced / file.to
        place.parent.mkdir(parents=True, exist_ok=True)
        target.replace(place)

    def _read_records(self) -> dict[str, Record]:
        records = {}
        for path in self.records.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, TypeError):
                records[unquote(path.stem)] = Record(**json.loads(path.read_text(encoding="utf-8")))
        return records


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write beside, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False, encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
