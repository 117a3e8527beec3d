"""Names objects: `{prefix}/{YYYY-MM-DD}/{relative path}`, valid UTF-8 for any file name; pure."""

from __future__ import annotations

import datetime
import hashlib
import os
import re

LONGEST_KEY = 1024
"""Bytes of UTF-8 that S3 and R2 take as a key."""
LONGEST_NAME = 255
"""Bytes of one part of a key: a bucket copied to a disk must fit that disk."""
_HASH_ROOM = 65  # A dot and a whole sha256.
_ESCAPED = re.compile(r"%(?=[0-9A-F]{2})")


def object_key(prefix: str, relative: str, mtime_ns: int) -> str:
    """Name the object of the file `relative` to the output folder (as os.fsdecode gives it), changed at `mtime_ns`.

    The date is that of the change in UTC. Bytes that are not UTF-8 and control characters become `%XX`; a `%` that
    looks like one of ours becomes `%25`, so two names never become one. A path too long for a key keeps its file name
    behind a hash of its folders.
    """
    *folders, name = (_safe(part) for part in relative.split("/"))
    base = f"{prefix}/{utc_date(mtime_ns)}"
    key = "/".join([base, *folders, name])
    if len(key.encode()) + _HASH_ROOM <= LONGEST_KEY:
        return key
    digest = hashlib.sha256(os.fsencode(relative)).hexdigest()
    key = f"{base}/{digest[:16]}/{name}"
    if len(key.encode()) + _HASH_ROOM <= LONGEST_KEY:
        return key
    return f"{base}/{digest[:16]}/{_cut_in_the_middle(name, digest, LONGEST_NAME)}"


def with_content(key: str, sha256: str, digits: int = 12) -> str:
    """Name the object of other content than what lies at `key`: the first `digits` of its sha256 before the extension."""
    folder, _, name = key.rpartition("/")
    return f"{folder}/{_cut_in_the_middle(name, sha256[:digits], LONGEST_NAME)}"


def utc_date(mtime_ns: int) -> str:
    """Give the UTC date of `mtime_ns`; times outside the years 1970 to 9999 count as the nearest of them."""
    seconds = min(max(mtime_ns // 1_000_000_000, 0), 253_402_300_799)
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d")


def _safe(name: str) -> str:
    name = _ESCAPED.sub("%25", name)
    return "".join(_percent(c) if c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" else c for c in name)


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in os.fsencode(character))


def _cut_in_the_middle(name: str, mark: str, longest: int) -> str:
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > 16:
        stem, dot, extension = name, "", ""
    tail = f".{mark}{dot}{extension}"
    return stem.encode()[: longest - len(tail.encode())].decode("utf-8", "ignore") + tail
