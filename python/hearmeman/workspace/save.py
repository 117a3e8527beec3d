"""Saves the workspace: reads what changed, brings it into the bucket, and adds a save that others' saves went into."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from hearmeman.errors import HearmemanError
from hearmeman.log import log
from hearmeman.workspace.contents import FOLDERS, Entry, Save, SaveError, is_saved, merge, superseded
from hearmeman.workspace.space import Space
from hearmeman.workspace.tops import Tops

SETTLE_SECONDS = 3.0
"""A file that was changed within so long may still be written to; it is saved the next time."""
MOMENT = "it was changed a moment ago"
AT_ONCE = 8
IN_MEMORY = 8 * 1024**2
_TRIES = 30


@dataclass(frozen=True)
class Saved:
    """What came of saving."""

    save: Save
    """The newest save now."""
    before: Save
    """The newest one before."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """File -> why it was not read; an earlier version of it stays in the save."""

    @property
    def is_new(self) -> bool:
        """Whether there was anything to save."""
        return self.save.number != self.before.number

    def changes(self) -> dict[str, list[str]]:
        """Name the files that were added, changed and removed."""
        old, new = self.before.files, self.save.files
        return {
            "added": sorted(new.keys() - old.keys()),
            "changed": sorted(path for path in new.keys() & old.keys() if new[path] != old[path]),
            "removed": sorted(old.keys() - new.keys()),
        }


def save(
    space: Space,
    settle: float = SETTLE_SECONDS,
    check: bool = False,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda sent: None,
    now: Callable[[], float] = time.time,
) -> Saved:
    """Save what is here, if it differs from the newest save; `dry_run` only tells what would be saved.

    `check` asks the bucket which files it holds, and sends again what it lacks of those that were saved before.

    Raises:
        SaveError: what this pod saved before is all gone, as where a volume is missing; or a save cannot be used.
        OSError: the state folder cannot be written.
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: the bucket cannot be reached.
    """
    with space.lock():
        known = space.known()
        latest, number = space.store.latest()
        files, unread = _take(space, known, _there(space, known, latest, check), now(), settle, dry_run, progress)
        if known.files and not files:
            raise SaveError(
                f"nothing is left of the {len(known.files)} files that were in {space.comfyui}: nothing was "
                "saved, so that "
                "no save without them becomes the newest; is the volume mounted?"
            )
        nodes, packages = space.added()
        ours = Save(id=secrets.token_hex(8), pod=space.pod, at=now(), files=files, nodes=nodes, packages=packages)
        for _ in range(_TRIES):
            # What this pod last knew counts only if the newest save descends from it.
            base = known if known.id in (latest.id, *latest.parents) else Save()
            made = merge(base, ours, latest, number)
            if made.same_as(latest):
                if not dry_run:
                    space.note(replace(ours, number=latest.number, id=latest.id))
                return Saved(latest, latest, unread)
            if dry_run:
                return Saved(made, latest, unread)
            if space.store.put(made):
                space.note(replace(ours, number=made.number, id=made.id))
                _thin(space, now())
                return Saved(made, latest, unread)
            latest, number = space.store.latest()
        raise SaveError(f"other pods saved {_TRIES} times while this one tried: the next change tries again")


def _thin(space: Space, now: float) -> None:
    """Forget old saves; a token or a bucket that does not allow it keeps them all."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        kept = [(one.number, one.at) for one in space.store.saves()]
        for number in superseded(kept, now):
            space.store.forget(number)
    except (BotoCoreError, ClientError, HearmemanError, OSError, ValueError) as error:
        log("workspace.saves_kept", why=error)


def _there(space: Space, known: Save, latest: Save, check: bool) -> set[str]:
    """Give the contents that need not be sent: those that the bucket lists, or those of earlier saves."""
    if check:
        return {sha256 for sha256, _, _ in space.store.files()}
    return {entry.sha256 for entry in (*known.files.values(), *latest.files.values())}


def _take(
    space: Space,
    known: Save,
    there: set[str],
    at: float,
    settle: float,
    dry_run: bool,
    progress: Callable[[int], None],
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Read the files that changed since the last save, and send what the bucket lacks: (files, file -> why not read)."""
    found: dict[str, Entry] = {}
    changed: list[str] = []
    unread: dict[str, str] = {}

    def keep(path: str, why: str) -> None:
        unread[path] = why
        if path in known.files:
            found[path] = known.files[path]

    def left_out(path: str, why: str) -> None:
        # What was saved of it while it could be read is not removed by that.
        unread[path] = why
        found.update(
            {name: entry for name, entry in known.files.items() if name == path or name.startswith(f"{path}/")}
        )

    with space.tops() as base, ThreadPoolExecutor(AT_ONCE) as pool:
        for top in FOLDERS:
            for path, status in base.files(top, is_saved, left_out):
                before = known.files.get(path)
                same = before is not None and (before.size, before.mtime_ns) == (status.st_size, status.st_mtime_ns)
                if before is not None and same and before.sha256 in there:
                    found[path] = before
                elif at - settle < status.st_mtime <= at:
                    keep(path, MOMENT)
                else:
                    changed.append(path)

        def take(path: str) -> Entry | str:
            try:
                return _send(space, base, path, there, dry_run, progress)
            except OSError as error:
                return error.strerror or str(error)

        for path, result in zip(changed, pool.map(take, changed), strict=True):
            if isinstance(result, Entry):
                found[path] = result
            else:
                keep(path, result)
    return found, unread


def _send(
    space: Space, base: Tops, path: str, there: set[str], dry_run: bool, progress: Callable[[int], None]
) -> Entry | str:
    """Hash a file and send its content if the bucket lacks it; the answer is a text if it changed meanwhile."""
    with os.fdopen(base.open(path), "rb") as file:
        before = os.fstat(file.fileno())
        small = file.read(IN_MEMORY + 1) if before.st_size <= IN_MEMORY else None
        sha256 = (
            hashlib.sha256(small).hexdigest() if small is not None else hashlib.file_digest(file, "sha256").hexdigest()
        )
        if _changed(file.fileno(), before):
            return "it is being written to"
        entry = Entry(sha256, before.st_size, before.st_mtime_ns)
        if sha256 in there or dry_run or space.store.has(sha256, entry.size):
            return entry
        file.seek(0)
        try:
            # boto3 closes what it has sent, so it is given a descriptor of its own.
            with io.BytesIO(small) if small is not None else os.fdopen(os.dup(file.fileno()), "rb") as content:
                space.store.send(sha256, content, progress)
        except Exception:
            if small is None and _changed(file.fileno(), before):
                return "it is being written to"
            raise
        if small is None and _changed(file.fileno(), before):
            # The object may hold other content than its name says.
            space.store.forget_file(sha256)
            return "it is being written to"
        there.add(sha256)
        return entry


def _changed(descriptor: int, before: os.stat_result) -> bool:
    now = os.fstat(descriptor)
    return (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns)


def fingerprint(space: Space) -> dict[str, tuple[int, int]]:
    """Look at the workspace's files without reading them: path -> what changes with the content."""
    with contextlib.suppress(OSError), space.tops() as base:
        found = [item for top in FOLDERS for item in base.files(top, is_saved)]
        return {path: (status.st_size, status.st_mtime_ns) for path, status in found}
    return {}
