"""Files written whole: beside their places first, then put there together; and what a process that was killed has left."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

PREFIX, SUFFIX = ".voice-", ".part"
"""What a file is called before it is whole: PREFIX, something random, SUFFIX."""
_LEFT = 24 * 3600.0
"""Seconds after which nobody writes to it any more."""


class Change:
    """Several files of one change: none of them is there before all of them are written."""

    def __init__(self) -> None:
        self._written: list[tuple[Path, Path]] = []
        self._last: list[Callable[[], object]] = []

    def write(self, path: Path, pieces: Iterable[bytes]) -> None:
        """Write a file beside its place. Raises: OSError, with `path` for its name, when the disk is full."""
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
        """Do this when all is in its place: something that needs no room, such as a removal."""
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
    """Remove what a process that was killed has left: parts that nobody has written to for a day, at the Unix time `now`."""
    for part in folder.glob(f"{PREFIX}*{SUFFIX}"):
        # Another process may be quicker, or it is another user's: no reason not to begin.
        with contextlib.suppress(OSError):
            if now - part.stat().st_mtime > _LEFT:
                part.unlink()
