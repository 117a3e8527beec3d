"""State files, JSON objects written whole: beside their place, fsynced, renamed; a reader sees the old one or the new."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearmeman.redact import redacted


def write_json(path: Path, content: Mapping[str, object], durable: bool = True) -> None:
    """Write `content` to `path`, readable for everybody; without `durable` a loss of power may lose it.

    The secrets that this process knows are not written.

    Raises:
        OSError: it cannot be written; what was there stays, and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, json.dumps(redacted(content), indent=1), durable)


def write_named(path: Path, text: str) -> None:
    """Write `text` to a file that a person named: whole where it is a file, and into a device or pipe such as /dev/stdout.

    Raises:
        OSError: it cannot be written; a file that was there stays, and nothing is left beside it.
    """
    # A rename would put a file in the place of a device, or of a link.
    if path.is_relative_to("/dev") or (path.exists() and not path.is_file()):
        with path.open("w", encoding="utf-8") as there:
            there.write(text)
        return
    _replace(path.resolve(), text, durable=True)


def _replace(path: Path, text: str, durable: bool) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False, encoding="utf-8") as file:
        beside = Path(file.name)
        try:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


class Reader:
    """Reads state files again and again; one that was not written anew is not read again, so what is given is only looked at."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[tuple[int, int, int], dict[str, Any]]] = {}

    def __call__(self, path: Path) -> dict[str, Any]:
        """Give what `read_json` gives."""
        try:
            info = path.stat()
        except OSError:
            return {}
        mark = (info.st_ino, info.st_size, info.st_mtime_ns)
        if path not in self._read or self._read[path][0] != mark:
            self._read[path] = (mark, read_json(path))
        return self._read[path][1]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
