"""Brings a save back: fetches what is missing here, and never touches what is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from hearmeman.errors import HearmemanError
from hearmeman.sync.explain import BucketError, explained
from hearmeman.terminal import size
from hearmeman.workspace.contents import FOLDERS, Entry, Save, SaveError, is_safe
from hearmeman.workspace.space import Space

AT_ONCE = 8
SPARE_BYTES = 256 * 1024**2
"""Room that a restore leaves free."""


class NoRoomError(HearmemanError):
    """The volume is too small for what is to come back."""


@dataclass(frozen=True)
class Plan:
    """What a restore would do."""

    save: Save
    """What it is made from."""
    missing: dict[str, Entry]
    """Files that are to be fetched, those of the user folder first."""
    there: int
    """Files that lie here already, with whatever content."""
    removed: int
    """Files that were removed here since the last save and are left out."""

    @property
    def bytes(self) -> int:
        """What is to be fetched."""
        return sum(entry.size for entry in self.missing.values())


def plan(space: Space, found: Save, tops: tuple[str, ...] = FOLDERS, all_missing: bool = True) -> Plan:
    """Compare a save with what is here; without `all_missing` what was removed here on purpose is left out."""
    known = space.known()
    missing: dict[str, Entry] = {}
    there = removed = 0
    with space.tops() as base:
        for path, entry in sorted(
            found.files.items(), key=lambda item: (FOLDERS.index(item[0].split("/")[0]), item[0])
        ):
            if path.split("/")[0] not in tops or not is_safe(path):
                continue
            if base.has(path):
                there += 1
            elif not all_missing and known.files.get(path) == entry:
                removed += 1
            else:
                missing[path] = entry
    return Plan(found, missing, there, removed)


def execute(space: Space, wanted: Plan, is_latest: bool, progress: Callable[[int], None]) -> dict[str, str]:
    """Fetch what the plan names; the answer is file -> why it did not come back.

    Raises:
        NoRoomError: it does not fit; nothing was fetched.
    """
    room = os.statvfs(space.comfyui)
    free = room.f_bavail * room.f_frsize
    if wanted.bytes + SPARE_BYTES > free and wanted.missing:
        raise NoRoomError(
            f"{size(wanted.bytes)} would be restored, but {space.comfyui} has {size(free)} free: nothing was fetched; "
            "free some space, or use a larger volume"
        )
    failed: dict[str, str] = {}
    restored: dict[str, Entry] = {}
    with space.tops() as base, ThreadPoolExecutor(AT_ONCE) as pool:

        def fetch(item: tuple[str, Entry]) -> None:
            path, entry = item
            try:
                with explained(space.store.bucket):
                    new = base.add(
                        path, lambda to: space.store.fetch(entry.sha256, entry.size, to, progress), entry.mtime_ns
                    )
            except (BucketError, SaveError) as error:
                failed[path] = str(error)
            else:
                if new:
                    restored[path] = entry

        list(pool.map(fetch, wanted.missing.items()))
    if is_latest and restored:
        known = space.known()
        space.note(replace(known, number=wanted.save.number, id=wanted.save.id, files={**known.files, **restored}))
    return failed
