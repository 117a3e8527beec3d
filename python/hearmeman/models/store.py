"""The models folder: what is in it, what was verified, where files wait until they are whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote, unquote

from pydantic import ValidationError

from hearmeman.image import MODELS_DIR
from hearmeman.log import log
from hearmeman.models.catalogue import Catalogue, File, Listing, Snapshot, parts
from hearmeman.models.lock import Locked
from hearmeman.models.plan import Disk, Found, Record
from hearmeman.state_file import read_json, write_json

BAKED = MODELS_DIR
"""Where an image has models baked in; boot links them into the models folder."""


class Store:
    """A models folder. What is ours in it lies in one hidden folder, which ComfyUI does not look into."""

    def __init__(self, root: Path, baked: Path = BAKED) -> None:
        self.root, self.baked = root, baked
        self.own = root / ".hearmeman"
        self.records = self.own / "verified"
        self.listings = self.own / "listings"
        self.stated = self.own / "stated"
        self.staging = self.own / "staging"
        self.replaced = self.own / "replaced"

    def look(self, catalogue: Catalogue, wanted: Iterable[str], volume: Path | None = None, quota: int = 0) -> Disk:
        """See what is there of the files `wanted` (ids), by stat alone.

        `quota` bytes are what `volume` may hold; 0 leaves that to the filesystem.
        """
        noted = self._read_listings()
        chosen = {name: listing for name, listing in noted.items() if listing.chosen}
        listings = {**noted, **catalogue.listings, **chosen}
        files: list[File] = []
        names = set(wanted)
        for file in catalogue.files:
            if file.id not in names:
                continue
            if isinstance(file.source, Snapshot):
                files += parts(file, listings[file.id]) if file.id in listings else ()
            else:
                files.append(file)
        records, found, partial = self.read_records(), {}, {}
        for file in files:
            with contextlib.suppress(OSError):
                seen = (self.root / file.to).stat()
                found[file.to] = Found(seen.st_size, seen.st_mtime_ns)
                if file.sha256 and self._is_baked(file):
                    records[file.to] = Record(seen.st_size, seen.st_mtime_ns, file.sha256)
            with contextlib.suppress(KeyError, ValueError):
                partial[file.id] = int(str(read_json(self.journal(file))["done"]))
        free = self.free_bytes()
        if quota and volume is not None:
            free = min(free, max(0, quota - used_bytes(volume)))
        return Disk(found, records, partial, listings, free)

    def _is_baked(self, file: File) -> bool:
        # The image's own files were checked when it was built, and its layers are when they are pulled.
        place = self.root / file.to
        return place.is_symlink() and place.readlink() == self.baked / file.to

    def free_bytes(self) -> int:
        """Bytes that the filesystem has left."""
        there = self.root
        while not there.exists() and there != there.parent:
            there = there.parent
        seen = os.statvfs(there)
        return seen.f_bavail * seen.f_frsize

    def staged(self, file: File) -> Path:
        """Where a file is until it is whole: on its destination's filesystem, so that a rename is all that is left."""
        own = self._own_beside(file.to)
        # Beside other models it must not have a name that ComfyUI would list.
        name = Path(file.to).name + ("" if own == self.own else ".part")
        return own / "staging" / quote(file.id, safe="") / name

    def journal(self, file: File) -> Path:
        """Where it is noted which bytes of a staged file have arrived."""
        return self.staged(file).with_name(".journal.json")

    def staging_folders(self) -> list[Path]:
        """Where files are staged: in the models folder, and in each of its folders that lies on another filesystem."""
        inside = [self._own_beside(f"{folder.name}/any") for folder in self.root.glob("*") if folder.is_dir()]
        return [own / "staging" for own in dict.fromkeys([self.own, *inside])]

    def discard(self, file: File) -> None:
        """Throw away what was staged of a file."""
        shutil.rmtree(self.staged(file).parent, ignore_errors=True)
        own = self._own_beside(file.to)
        if own != self.own:
            for folder in (own / "staging", own):
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def accept(self, file: File, sha256: str, source: str) -> None:
        """Move a verified file from staging to its place, durably, and note that it was verified."""
        at, target = self.staged(file), self.root / file.to
        target.parent.mkdir(parents=True, exist_ok=True)
        fsync(at)
        if os.path.lexists(target):
            self._set_aside(target, file)
        _move(at, target)
        fsync(target.parent)
        self.discard(file)
        self.note(file, sha256, source)

    def _own_beside(self, to: str) -> Path:
        """Our hidden folder on the filesystem of a destination: the models folder's, or that of the folder which is elsewhere."""
        home = _device(self.root)
        for folder in reversed((self.root / to).parents[: len(Path(to).parts) - 1]):
            if folder.is_dir() and _device(folder) != home:
                return folder.resolve() / self.own.name
        return self.own

    def note(self, file: File, sha256: str, source: str) -> None:
        """Note that the file at its place was verified."""
        seen = (self.root / file.to).stat()
        record = Record(seen.st_size, seen.st_mtime_ns, sha256, source)
        write_json(self.records / f"{quote(file.to, safe='')}.json", asdict(record))

    def note_listing(self, file: File, listing: Listing) -> None:
        """Note what a snapshot consists of, so that later starts need not ask."""
        write_json(self.listings / f"{file.id}.json", listing.model_dump())

    def note_stated(self, file: File, stated: Locked) -> None:
        """Note what a source stated about a file, for later starts and other pods; a person's own choice stays."""
        before = self.read_stated().get(file.id)
        if before is not None and before.chosen and not stated.chosen:
            return
        if before is not None and not stated.name:
            stated = stated.model_copy(update={"name": before.name})
        write_json(self.stated / f"{quote(file.id, safe='')}.json", stated.model_dump())

    def read_stated(self) -> dict[str, Locked]:
        """Give what sources have stated, by the file's id."""
        found = {}
        for path in self.stated.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, ValidationError):
                found[unquote(path.stem)] = Locked.model_validate_json(path.read_text(encoding="utf-8"))
        return found

    def forget(self, to: str) -> None:
        """Remove a file and what was noted of it."""
        (self.root / to).unlink(missing_ok=True)
        (self.records / f"{quote(to, safe='')}.json").unlink(missing_ok=True)
        for folder in (self.root / to).parents:
            if folder == self.root:
                break
            with contextlib.suppress(OSError):
                folder.rmdir()

    def read_records(self) -> dict[str, Record]:
        """Give what was verified, by destination."""
        records = {}
        for path in self.records.glob("*.json"):
            with contextlib.suppress(TypeError):
                records[unquote(path.stem)] = Record(**read_json(path))
        return records

    def _set_aside(self, target: Path, file: File) -> None:
        # It may be a person's own file of the same name, so every one of them is kept.
        replaced = self._own_beside(file.to) / self.replaced.name
        place = replaced / file.to
        number = 1
        while os.path.lexists(place):
            number += 1
            place = replaced / f"{file.to}.{number}"
        place.parent.mkdir(parents=True, exist_ok=True)
        _move(target, place)
        log(
            "model.replaced", file=file.to, kept_as=place.relative_to(self.root) if replaced == self.replaced else place
        )

    def _read_listings(self) -> dict[str, Listing]:
        found = {}
        for path in self.listings.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, ValidationError):
                found[path.stem] = Listing.model_validate_json(path.read_text(encoding="utf-8"))
        return found


def _device(path: Path) -> int:
    """Which filesystem a path, or else the folder that it will be in, is on."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path.stat().st_dev


def _move(source: Path, target: Path) -> None:
    """Rename, or where two mounts of one filesystem refuse that: copy durably under another name, and rename the copy."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".{target.name}.part")
        shutil.copy2(source, beside, follow_symlinks=False)
        fsync(beside)
        beside.replace(target)
        source.unlink()


def used_bytes(folder: Path) -> int:
    """Bytes that all files below `folder` occupy on disk."""
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                yield entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    yield from _sizes(Path(entry.path))


def fsync(path: Path) -> None:
    """Make a file or a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
