"""Whether the bytes that pass are the file that is wanted."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from hearmeman_pod.errors import PodError


class WrongContentError(PodError):
    """What came, or what lies on the volume, is another file."""


@dataclass(frozen=True)
class Wanted:
    """What a file should be, as its catalogue or its source says."""

    to: str
    """Its path below the models folder."""
    size: int | None
    """Bytes."""
    sha256: str | None
    blob: str | None
    """Git's hash."""

    @property
    def hashed(self) -> bool:
        """Whether its content is known, and not only its size."""
        return self.known in ("sha256", "git")

    @property
    def known(self) -> str:
        """What a file is compared with: sha256, git, size or nothing."""
        if self.sha256:
            return "sha256"
        # Git's hash begins with the size.
        return "nothing" if self.size is None else "git" if self.blob else "size"


class Check:
    """Hashes what passes and compares it with what is wanted."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._hash = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % (wanted.size or 0), usedforsecurity=False)
        self.size = 0
        """Bytes so far."""

    def add(self, block: bytes) -> None:
        """Take the next bytes."""
        self.size += len(block)
        self._hash.update(block)
        if self._wanted.blob:
            self._git.update(block)

    @property
    def sha256(self) -> str:
        """Of what has passed, in hex."""
        return self._hash.hexdigest()

    @property
    def fits(self) -> bool:
        """Whether it is the file."""
        wanted = self._wanted
        return (
            wanted.size in (None, self.size)
            and wanted.sha256 in (None, self.sha256)
            and (bool(wanted.sha256) or wanted.size is None or wanted.blob in (None, self._git.hexdigest()))
        )

    def verdict(self) -> str:
        """Say what the file was compared with.

        Raises:
            WrongContentError: it is another file.
        """
        wanted = self._wanted
        if not self.fits:
            what = f"{self.size} bytes came, and it has {wanted.size}"
            if wanted.size in (None, self.size):
                what = f"the content is not the expected one ({'sha256' if wanted.sha256 else 'git'})"
            raise WrongContentError(f"{what}: nothing is kept of it")
        return wanted.known
