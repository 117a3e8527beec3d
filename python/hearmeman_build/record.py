"""images.lock.json: which image was pushed where, by digest, and from which commit."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearmeman_build import locks
from hearmeman_build.build import Image
from hearmeman_build.errors import BuildError
from hearmeman_build.host import writable_checkout, write_atomically
from hearmeman_build.inspect_image import configuration

NAME = "images.lock.json"
_CURE = f"restore it from git, `git checkout HEAD {NAME}`, or delete it; nothing was pushed"


@dataclass(frozen=True)
class Revision:
    """The commit that an image is built from."""

    commit: str
    """40 hexadecimal digits; empty outside a git checkout."""
    dirty: bool
    """Whether tracked files differ from the commit."""


def revision(root: Path) -> Revision:
    """The checkout's commit."""
    git = ["git", "-c", "safe.directory=*", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        # The record itself is written by a push.
        status = [*git, "status", "--porcelain", "--untracked-files=no", "--", ".", f":!{NAME}"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return Revision("", False)
    return Revision(commit, bool(changed))


def origin(root: Path) -> dict[str, str]:
    """Commit and address of the source, under the names that OCI gives them; without what is unknown."""
    made_from = revision(root)
    command = ["git", "-c", "safe.directory=*", "-C", str(root), "remote", "get-url", "origin"]
    try:
        remote = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        remote = ""
    # A token may stand before the host; a path on this machine says nothing elsewhere.
    source = re.sub(r"^(https?://)[^@/]*@", r"\1", remote) if re.match(r"https?://|ssh://|git@", remote) else ""
    commit = made_from.commit + ("-dirty" if made_from.dirty else "")
    found = {"org.opencontainers.image.revision": commit, "org.opencontainers.image.source": source}
    return {name: value for name, value in found.items() if value}


def read(root: Path) -> list[dict[str, Any]]:
    """What was pushed so far; asked for before a push, so that nothing is pushed that cannot be recorded.

    Raises:
        BuildError: the file is damaged, or there is no checkout to write it to.
    """
    if not writable_checkout(root):
        raise BuildError(f"{NAME} is kept in the checkout: run this inside one; nothing was pushed")
    if not (root / NAME).exists():
        return []
    entries = locks.read(root, NAME, _CURE)
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and {"tier", "repository", "digest"} <= set(entry) for entry in entries
    ):
        raise BuildError(f"{NAME} is not a list of pushed images: {_CURE}")
    return entries


def write(
    root: Path, tier: str, repository: str, tag: str, image: Image, compression: str, about: Mapping[str, Any]
) -> None:
    """Put what was pushed into the record: one entry for each tier and repository; `about` is its image.json."""
    entries = [e for e in read(root) if (e["tier"], e["repository"]) != (tier, repository)]
    labels = configuration(image)["config"]["Labels"]
    made_from = revision(root)
    entries.append(
        {
            "tier": tier,
            "repository": repository,
            "tag": tag,
            "digest": image.digest,
            "compression": compression,
            "size": image.size,
            "revision": made_from.commit,
            "dirty": made_from.dirty,
            "comfyui_rev": labels["io.hearmeman.comfyui-commit"],
            "cuda_floor": labels["io.hearmeman.cuda-floor"],
            "defaults": about.get("env", {}),
            "recommended": about.get("recommended", {}),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }
    )
    write_atomically(root / NAME, (locks.dump(entries)).encode())
