"""What a save holds, how it is written as JSON, and how the saves of several pods become one; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TypeVar

from hearmeman.errors import HearmemanError

FOLDERS = ("user", "input", "voices")
"""Folders that are saved, see tops.py for where they lie; workflows and settings are in the first."""
FORMAT = 1
PARENTS = 40
"""Ids of earlier saves that each one names."""
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{0,100}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
NODE = re.compile(r"[^/\0\n.-][^/\0\n]{0,199}")
PACKAGE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
PACKAGE_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_NOT_SAVED_FOLDERS = frozenset({"cache", "__pycache__", ".cache", ".git", "startup-scripts"})
"""Caches come by themselves, and what the Manager runs at the next start must not run on another pod."""
_NOT_SAVED = re.compile(
    r"\.(log|db|db-wal|db-shm|db-journal|tmp|temp|part|lock|pid|swp)(\.\d+)?$|\.prev\d*\.log$|^\.hearmeman-"
)
Item = TypeVar("Item")


class SaveError(HearmemanError):
    """A save in the bucket cannot be used."""


class DamagedError(SaveError):
    """It is no save, or names what no save names."""


@dataclass(frozen=True)
class Entry:
    """One file."""

    sha256: str
    """Of its content; its object is named by it."""
    size: int
    """Bytes."""
    mtime_ns: int
    """When it was changed, nanoseconds since 1970."""


@dataclass(frozen=True)
class Node:
    """A custom node that was added on the volume."""

    url: str = ""
    """Where git fetches it from, without a login; empty if it is no git checkout of a public address."""
    commit: str = ""
    """The commit that is checked out."""
    version: str = ""
    """What its pyproject.toml says; for nodes that are no git checkout."""


@dataclass(frozen=True)
class Save:
    """All of a workspace at one time."""

    number: int = 0
    """Counts the saves of a bucket from 1; 0 is the empty one before them."""
    id: str = ""
    """Names it among all that were ever made."""
    pod: str = ""
    """The pod that made it."""
    at: float = 0.0
    """Unix seconds."""
    parents: tuple[str, ...] = ()
    """Ids of the saves that it was made from, the last one first."""
    files: Mapping[str, Entry] = field(default_factory=dict)
    """Path below ComfyUI's base directory, such as user/default/workflows/a.json -> the file."""
    nodes: Mapping[str, Node] = field(default_factory=dict)
    """Folder or file in custom_nodes -> the node."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Python package that was added to ComfyUI -> its version."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    def same_as(self, other: Save) -> bool:
        """Tell whether both hold the same."""
        return (self.files, self.nodes, self.packages) == (other.files, other.nodes, other.packages)


def is_saved(path: str) -> bool:
    """Tell whether a file, named below ComfyUI's base directory, belongs to the workspace."""
    *folders, name = path.split("/")
    return not _NOT_SAVED_FOLDERS.intersection(folders) and not _NOT_SAVED.search(name)


def is_safe(path: str) -> bool:
    """Tell whether a path out of a save stays in its folder."""
    parts = path.split("/")
    if parts[0] not in FOLDERS or not 2 <= len(parts) <= 60 or "\0" in path:
        return False
    return all(part not in ("", ".", "..") and len(part.encode(errors="surrogateescape")) <= 255 for part in parts)


def dump(save: Save) -> bytes:
    """Write a save as JSON; names that are not UTF-8 come through."""
    return json.dumps({"version": FORMAT, **asdict(save)}, indent=1, sort_keys=True).encode()


def parse(content: bytes, where: str) -> Save:
    """Read a save; `where` names it in errors. It may have been written by anybody who can write to the bucket.

    Raises:
        SaveError: it is of a later version, damaged, or names a path outside of its folders.
    """
    try:
        raw = json.loads(content)
        if raw["version"] != FORMAT:
            raise SaveError(
                f"{where} was written by another version of hearmeman (format {raw['version']}): use that version, "
                "or restore an earlier one with --from"
            )
        files = {path: Entry(str(e["sha256"]), int(e["size"]), int(e["mtime_ns"])) for path, e in raw["files"].items()}
        nodes = {name: Node(*(str(n[key]) for key in ("url", "commit", "version"))) for name, n in raw["nodes"].items()}
        packages = {str(name): str(version) for name, version in raw["packages"].items()}
        found = Save(
            int(raw["number"]),
            str(raw["id"]),
            str(raw["pod"]),
            float(raw["at"]),
            tuple(str(parent) for parent in raw["parents"]),
            files,
            nodes,
            packages,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{where} is damaged ({type(error).__name__}: {error}): restore an earlier one with --from"
        ) from error
    wrong = [path for path, entry in files.items() if not is_safe(path) or not _is_entry(entry)]
    wrong += [text for text in (found.pod, found.id, *found.parents) if not _PLAIN.fullmatch(text)]
    wrong += [name for name, node in nodes.items() if not _is_node(name, node)]
    wrong += [
        n for n, v in packages.items() if not PACKAGE.fullmatch(n) or not (v == "" or PACKAGE_VERSION.fullmatch(v))
    ]
    if wrong:
        raise DamagedError(
            f"{where} names {wrong[0]!r}, which no save of a workspace holds: nothing was restored from it; "
            "find out who writes to this bucket, and restore an earlier one with --from"
        )
    return found


def _is_entry(entry: Entry) -> bool:
    return bool(_SHA256.fullmatch(entry.sha256)) and entry.size >= 0 and -(2**62) < entry.mtime_ns < 2**62


def _is_node(name: str, node: Node) -> bool:
    plain = all(character.isprintable() and character != " " for character in node.url)
    return (
        bool(NODE.fullmatch(name))
        and (node.url == "" or (node.url.startswith("https://") and plain and "@" not in node.url))
        and (node.commit == "" or bool(COMMIT.fullmatch(node.commit)))
    )


def merged(
    base: Mapping[str, Item], ours: Mapping[str, Item], theirs: Mapping[str, Item], newer: Callable[[Item, Item], bool]
) -> dict[str, Item]:
    """Bring our changes since `base` into `theirs`, which other pods may have changed since.

    What only we changed, added or removed is as we have it; all else is as they have it. What both changed is ours if
    `newer(ours, theirs)`. What one removed and the other changed stays.
    """
    found = dict(theirs)
    for name, item in ours.items():
        other = theirs.get(name)
        unchanged = base.get(name) == item
        if other is None:
            if not unchanged:
                found[name] = item  # Ours alone; if we had not changed it, they removed it.
        elif other != item and not unchanged and (base.get(name) == other or newer(item, other)):
            found[name] = item
    for name in base.keys() - ours.keys():
        if found.get(name) == base[name]:
            del found[name]
    return found


def later(ours: Entry, theirs: Entry) -> bool:
    """Tell whether our file was changed after theirs."""
    return ours.mtime_ns >= theirs.mtime_ns


def merge(base: Save, ours: Save, latest: Save, number: int) -> Save:
    """Make save `number`, which follows `latest`: our changes since `base` and all that others have saved."""
    return Save(
        number=number,
        id=ours.id,
        pod=ours.pod,
        at=ours.at,
        parents=((latest.id, *latest.parents) if latest.id else ())[:PARENTS],
        files=merged(base.files, ours.files, latest.files, later),
        nodes=merged(base.nodes, ours.nodes, latest.nodes, lambda mine, other: True),
        packages=merged(base.packages, ours.packages, latest.packages, lambda mine, other: True),
    )


def superseded(numbers: list[tuple[int, float]], now: float, last: int = 20, days: int = 30) -> list[int]:
    """Name the saves that need not be kept: all but the last ones, and the last of each recent day.

    `numbers` are (number, Unix seconds), `last` and `days` say how many of each are kept.
    """
    ordered = sorted(numbers)
    kept = {number for number, _ in ordered[-last:]}
    by_day = {int(at // 86400): number for number, at in ordered if now - at < days * 86400}
    return [number for number, _ in ordered if number not in kept and number not in by_day.values()]
