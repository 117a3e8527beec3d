"""Writes files whole: first beside their final places, then moved there together; cleans up after killed processes."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

PREFIX, SUFFIX = ".voice-", ".part"
"""A file's name before it is complete: PREFIX, something random, SUFFIX."""
_LEFT = 24 * 3600.0
"""Seconds after which nobody is writing to it any more."""


class Change:
    """Several files of one change: none appears before all are written."""

    def __init__(self) -> None:
        self._written: list[tuple[Path, Path]] = []
        self._last: list[Callable[[], object]] = []

    def write(self, path: Path, pieces: Iterable[bytes]) -> None:
        """Write a file beside its place. Raises: OSError naming `path`, when the disk is full."""
        try:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=PREFIX, suffix=SUFFIX)
            self._written.append((Path(name), path))
            with os.fdopen(handle, "wb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o644)
        except OSError as problem:
            raise OSError(problem.errno, problem.strerror, str(path)) from problem

    def then(self, do: Callable[[], object]) -> None:
        """Do this when everything is in place: something that needs no space, such as a removal."""
        self._last.append(do)

    def _finish(self) -> None:
        for beside, path in self._written:
            beside.replace(path)
        for do in self._last:
            do()

    def _clear(self) -> None:
        for beside, _ in self._written:
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def change() -> Iterator[Change]:
    """A change that is made at the end of the block, or not at all if that raises."""
    made = Change()
    try:
        yield made
        made._finish()
    finally:
        made._clear()


def sweep(folder: Path, now: float) -> None:
    """Remove what killed processes left: parts not written to for a day, at the Unix time `now`."""
    for part in folder.glob(f"{PREFIX}*{SUFFIX}"):
        # Another process may be faster, or it may be another user's: no reason not to start.
        with contextlib.suppress(OSError):
            if now - part.stat().st_mtime > _LEFT:
                part.unlink()
