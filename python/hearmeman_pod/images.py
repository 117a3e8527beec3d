"""Which image a pod is made from: an entry of images.lock.json, or REPOSITORY@sha256:…; never a tag."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hearmeman_pod.errors import UsageError

_REFERENCE = re.compile(r"(?P<repository>[a-z0-9][a-z0-9._/:-]*[a-z0-9])@(?P<digest>sha256:[0-9a-f]{64})")
_CUDA = re.compile(r"\d+\.\d+")


@dataclass(frozen=True)
class Image:
    """An image in a registry."""

    reference: str
    """REPOSITORY@sha256:…"""
    cuda_floor: str
    """Lowest CUDA version that its host must offer, such as 12.8; empty where it is not known."""
    tier: str = ""
    """The tier it was built for; empty where only a reference was given."""
    size: int = 0
    """Bytes of its compressed layers; 0 where it is not known."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Variables that hold in every pod of it, under what the pod itself sets."""
    recommended: Mapping[str, str] = field(default_factory=dict)
    """Variables that its tier recommends: what is worth its download on such a GPU."""


def from_reference(reference: str, cuda_floor: str) -> Image:
    """Take an image by its full reference.

    Raises:
        UsageError: it has no digest.
    """
    if not _REFERENCE.fullmatch(reference):
        raise UsageError(
            f"--image {reference} has no digest: a tag may be something else tomorrow. "
            "Give REPOSITORY@sha256:…, as `nix run .#push` prints it and images.lock.json holds it"
        )
    return Image(reference, cuda_floor)


def from_lock(path: Path, tier: str) -> Image:
    """Take the newest image of `tier` that was pushed.

    Raises:
        UsageError: nothing was pushed, the tier was not, or the file is damaged.
    """
    push = f"build and push one: `nix run .#push -- --tier {tier}`; or name one: --image REPOSITORY@sha256:…"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        known = [entry for entry in entries if entry["tier"] == tier]
        tiers = sorted({str(entry["tier"]) for entry in entries})
        newest = max(known, key=lambda entry: str(entry["date"]), default=None)
        if newest is None:
            raise UsageError(f"{path} has no image of tier {tier}; it has {', '.join(tiers) or 'none'}: {push}")
        found = _recorded(newest)
    except FileNotFoundError:
        raise UsageError(
            f"{path} does not exist: no image has been pushed from this checkout. To fix it, {push}"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{path} is damaged ({type(error).__name__}: {error}): restore it from git (`git checkout HEAD {path.name}`), "
            f"or {push}"
        ) from error
    if not _REFERENCE.fullmatch(found.reference) or (found.cuda_floor and not _CUDA.fullmatch(found.cuda_floor)):
        raise UsageError(f"{path} holds no usable reference for tier {tier}: {push}")
    return found


def by_reference(path: Path, reference: str) -> Image:
    """What the record says of an image that is in use; its reference alone where it says nothing."""
    try:
        for entry in json.loads(path.read_text(encoding="utf-8")):
            if (found := _recorded(entry)).reference == reference:
                return found
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    return Image(reference, "")


def _recorded(entry: Mapping[str, Any]) -> Image:
    return Image(
        f"{entry['repository']}@{entry['digest']}",
        str(entry.get("cuda_floor", "")),
        str(entry["tier"]),
        int(entry["size"]),
        {str(name): str(value) for name, value in entry.get("defaults", {}).items()},
        {str(name): str(value) for name, value in entry.get("recommended", {}).items()},
    )
