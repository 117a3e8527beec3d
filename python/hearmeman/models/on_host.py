"""Models that the host has already: files of RunPod's cached models are linked to, and then verified like any other.

RunPod puts them on the host in the Hub's own layout, `models--OWNER--NAME/snapshots/COMMIT/PATH`, before a worker starts.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hearmeman.log import log
from hearmeman.models.catalogue import File, HuggingFace
from hearmeman.models.plan import Step


def link(steps: Iterable[Step], root: Path, cache: Path) -> int:
    """Put a link at the place of every file of `steps` that is to be fetched and that `cache` has; how many there are now.

    The plan that is made afterwards has them read and compared before they are used, and fetches those that differ. Links
    that another host's cache left on the volume, and that lead nowhere here, are removed.
    """
    count = 0
    for step in steps:
        place = root / step.file.to
        if step.action != "fetch":
            continue
        with contextlib.suppress(OSError):
            if place.is_symlink() and place.readlink().is_relative_to(cache) and not place.exists():
                place.unlink()
        for found in _candidates(step.file, cache):
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(found)
            except OSError as error:
                # Something is there, or the volume takes no links: it is fetched as if there were no cache.
                log("model.not_linked", file=step.file.to, why=error.strerror or error)
            else:
                log("model.linked", file=step.file.to, to=found)
                count += 1
            break
    return count


def _candidates(file: File, cache: Path) -> Iterator[Path]:
    """Give what may be the file, as far as can be told without reading it; the commit matters not, its content does."""
    source = file.source
    # What is known of a file without a hash is not enough to take it from a place that anybody may have filled.
    if not isinstance(source, HuggingFace) or file.sha256 is None:
        return
    snapshots = cache / f"models--{source.repo.replace('/', '--')}" / "snapshots"
    with contextlib.suppress(OSError):
        for commit in sorted(snapshots.iterdir()):
            path = commit / source.path
            with contextlib.suppress(OSError):
                blob = path.resolve(strict=True)
                is_other = re.fullmatch("[0-9a-f]{64}", blob.name) is not None and blob.name != file.sha256
                right = file.size in (None, blob.stat().st_size) and not is_other
                if right and blob.is_file() and blob.is_relative_to(cache.resolve()) and os.access(blob, os.R_OK):
                    yield path
