"""Which filesystem a folder lies on, how full it is, and whether it can be written."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

NETWORK = ("nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "lustre", "9p", "virtiofs", "beegfs", "gpfs", "afs")
"""Filesystem types that lie behind a network, beside everything that FUSE serves."""


_LOCAL_FUSE = ("fuseblk", "fuse.fuse-overlayfs")


@dataclass(frozen=True)
class Mount:
    """The mount that a path lies on."""

    point: str
    """Where it is mounted."""
    kind: str
    """The filesystem's type, such as ext4 or fuse.mfs; empty when the system does not say."""
    source: str = ""
    """What is mounted there."""
    read_only: bool = False
    """Whether it is mounted for reading only."""

    @property
    def is_network(self) -> bool:
        """Whether reading goes over a network, as far as the type tells."""
        return self.kind in NETWORK or (self.kind.startswith("fuse") and self.kind not in _LOCAL_FUSE)


ROOT_MOUNT = Mount("/", "")
"""The answer where the system does not say."""


def mount_of(path: Path, root: Path = Path("/")) -> Mount:
    """Find the mount that `path`, or its nearest existing ancestor, lies on; `root` is where proc is."""
    real = os.path.realpath(path)
    best = ROOT_MOUNT
    for line in _read(root / "proc/self/mountinfo").splitlines():
        left, dash, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if not dash or len(fields) < 6 or len(kinds) < 2:
            continue
        point = _unescaped(fields[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        # The last of several mounts on one point is the one that shows.
        if inside and len(point) >= len(best.point):
            best = Mount(point, kinds[0], _unescaped(kinds[1]), "ro" in fields[5].split(","))
    return best


def nearest(path: Path) -> Path:
    """Give the path itself or its nearest ancestor that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
