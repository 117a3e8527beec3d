"""Speech saved to a file on the server: complete or not at all, and never over another file."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import IO

from hearmeman_voice.audio import FORMATS
from hearmeman_voice.errors import ApiError
from hearmeman_voice.files import PREFIX, SUFFIX
from hearmeman_voice.reply import Audio, Block, with_lengths
from hearmeman_voice.voices import BadName, safe_child


def inside(base: Path, name: str) -> Path:
    """The path that `name` means in the output folder: a file's name, or a path inside this folder.

    Raises:
        ApiError: it would be elsewhere, or its suffix is not a format.
    """
    given = name.removeprefix(f"{base}/")
    suffix = Path(given).suffix.lower().removeprefix(".")
    try:
        path = safe_child(base, given if suffix in FORMATS else f"{given}.wav")
    except BadName:
        raise ApiError(
            400,
            f"file_name_or_path: {name[:60]!r} is not the name of a file in {base}",
            param="file_name_or_path",
            code="invalid_value",
        ) from None
    if path.name.startswith("."):
        raise ApiError(400, "file_name_or_path: it begins with a dot", param="file_name_or_path", code="invalid_value")
    return path


class Saved:
    """Writes beside the target and moves the file there at the end; the answer says where it is."""

    content_type = "application/json"
    is_quick = False
    whole = True

    def __init__(self, target: Path, rate: int) -> None:
        self._target = target
        self._format = target.suffix.lower().removeprefix(".")
        self._audio = Audio(self._format, rate, whole=False)
        self._open: tuple[IO[bytes], Path] | None = None

    def write(self, block: Block) -> bytes:
        """Write a block; nothing is sent."""
        self._part()[0].write(self._audio.write(block))
        return b""

    def _part(self) -> tuple[IO[bytes], Path]:
        """Open the file beside the target once there is something to write: a refused request leaves nothing."""
        if self._open is None:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            handle, beside = tempfile.mkstemp(dir=self._target.parent, prefix=PREFIX, suffix=SUFFIX)
            self._open = os.fdopen(handle, "w+b"), Path(beside)
        return self._open

    def idle(self) -> bytes:
        """Return a space, which JSON allows before it begins."""
        return b" "

    def finish(self) -> bytes:
        """Move the file into place."""
        file, beside = self._part()
        file.write(self._audio.finish())
        if self._format == "wav":
            length = file.tell()
            file.seek(0)
            head = with_lengths(file.read(44), length)
            file.seek(0)
            file.write(head)
        file.flush()
        os.fsync(file.fileno())
        beside.chmod(0o644)
        path = self._place(beside)
        answer = {"message": "The audio was successfully made and stored.", "output_path": str(path)}
        return json.dumps(answer).encode()

    def complete(self, body: bytes) -> bytes:
        """Leave it."""
        return body

    def failed(self, error: ApiError) -> bytes:
        """Say what went wrong."""
        return json.dumps(error.body()).encode()

    def close(self) -> None:
        """Remove what is not in place."""
        if self._open is not None:
            file, beside = self._open
            beside.unlink(missing_ok=True)
            file.close()

    def _place(self, beside: Path) -> Path:
        for number in range(1, 10_000):
            path = self._target if number == 1 else self._target.with_stem(f"{self._target.stem}-{number}")
            try:
                # Unlike a rename, this never replaces a file.
                path.hardlink_to(beside)
                beside.unlink()
                return path
            except FileExistsError:
                continue
        raise ApiError(
            409, f"there are already 9,999 files named like {self._target.name}", code="file_exists", useless=True
        )
