"""The other end of `put`, `get` and `sync`: sent to the pod's own Python over SSH and run there, so any image has it.

It speaks in lines of JSON, some of them followed by a file's bytes, and imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

GREETING = b"hearmeman-files 1\n"
"""After what a shell's startup files print, this begins the conversation."""
PLACES = ("input", "output", "voices", "user", "models")
"""What the places are called, whatever folders the pod's variables make them."""
PART = ".hearmeman-"
"""How the name of a file begins that is not whole yet; no sync and no ComfyUI takes it for one of theirs."""
FACTS = "/run/hearmeman/comfyui.json"
"""What boot says of ComfyUI: whether it has a user of its own, and its variables."""
_BLOCK = 1 << 20
_STALE = 7 * 24 * 3600.0


class RefusedError(Exception):
    """The order cannot be carried out; the connection goes on."""


def places(environ: dict[str, str]) -> dict[str, Path]:
    """Where the pod has its places: name -> folder, and the volume as an empty name."""
    volume = Path(environ.get("VOLUME_DIR") or "/workspace")
    own = volume / "ComfyUI"
    return {
        "": volume,
        "input": own / "input",
        "output": Path(environ.get("COMFYUI_OUTPUT_DIR") or own / "output"),
        "voices": volume / "voices",
        "user": own / "user",
        "models": Path(environ.get("MODELS_DIR") or own / "models"),
    }


def found(place: str, known: dict[str, Path]) -> tuple[Path, Path]:
    """Give the folder of a place, and the one that nothing may lead out of.

    Raises:
        RefusedError: an absolute path is not on the volume.
    """
    if not place.startswith("/"):
        name, _, rest = place.partition("/")
        return known[name] / rest, known[name]
    path = Path(os.path.normpath(place))
    for top in (known[""], known["models"], known["output"]):
        if path == top or top in path.parents:
            return path, top
    raise RefusedError(f"{place} is outside the volume, {known['']}: only what is on it outlives the pod")


class Place:
    """One folder of the pod, and the orders that are carried out in it."""

    def __init__(self, folder: Path, top: Path) -> None:
        self.folder, self.top = folder, Path(os.path.realpath(top))

    def path(self, name: str) -> Path:
        """A file of this place; no link leads out of it."""
        path = self.folder / name if name else self.folder
        real = Path(os.path.realpath(path.parent if name else path))
        if real != self.top and self.top not in real.parents:
            raise RefusedError(f"{path} leads out of {self.top}, to {real}")
        return path

    def files(self) -> Iterator[list[Any]]:
        """[name, bytes, nanoseconds] of each file of the place; hidden ones and links are left out."""
        base = self.path("")
        if base.is_file() and not base.is_symlink():
            known = base.stat()
            yield ["", known.st_size, known.st_mtime_ns]
            return
        if not base.is_dir():
            raise RefusedError(f"there is no {base} in the pod")
        for parent, folders, names in os.walk(base):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for path in (Path(parent, name) for name in sorted(names) if not name.startswith(".")):
                known = path.lstat()
                if stat.S_ISREG(known.st_mode):
                    yield [str(path.relative_to(base)), known.st_size, known.st_mtime_ns]

    def digest(self, name: str) -> str:
        with _opened(self.path(name)) as file:
            return str(_hashed(file, None).hexdigest())

    def receive(self, order: dict[str, Any], source: IO[bytes], answer: Any) -> dict[str, Any]:
        """Take one file: it is under its name only when it is whole and has its hash."""
        path = self.path(order["name"])
        if path.is_dir() and not path.is_symlink():
            raise RefusedError(f"{path} is a folder in the pod")
        if path.is_symlink():
            raise RefusedError(f"{path} is a link in the pod: remove it there, or rename yours")
        if path.exists():
            if path.stat().st_size == order["size"] and self.digest(order["name"]) == order["sha256"]:
                return {"state": "present"}
            if not order["replace"]:
                return {"state": "other"}
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.parent / f"{PART}{order['sha256'][:32]}.part"
        _sweep(path.parent, part)
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o664), "r+b") as file:
            known = _hashed(file, order["size"])
            file.truncate(file.tell())
            answer({"state": "send", "at": file.tell()})
            left = order["size"] - file.tell()
            try:
                while left:
                    block = source.read(min(left, _BLOCK))
                    if not block:
                        raise EOFError
                    known.update(block)
                    left -= len(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.close()
                part.unlink(missing_ok=True)
                while left and (block := source.read(min(left, _BLOCK))):
                    left -= len(block)
                raise
        if known.hexdigest() != order["sha256"]:
            part.unlink()
            raise RefusedError(f"{path}: it arrived damaged and was not kept: send it again")
        os.utime(part, ns=(order["mtime_ns"], order["mtime_ns"]))
        part.replace(path)
        _settle(path.parent)
        return {"state": "sent"}

    def send(self, order: dict[str, Any], sink: IO[bytes], answer: Any) -> dict[str, Any]:
        """Give one file from byte `at` on, and its hash at the end."""
        with _opened(self.path(order["name"])) as file:
            before = os.fstat(file.fileno())
            same = before.st_size == order["size"] and before.st_mtime_ns == order["mtime_ns"]
            known = _hashed(file, order["at"] if same else 0)
            left = before.st_size - file.tell()
            answer({"state": "send", "at": file.tell(), "size": before.st_size})
            while left:
                # What is cut off while it is read is filled up; its hash says that it is not whole.
                try:
                    block = file.read(min(left, _BLOCK)) or bytes(min(left, _BLOCK))
                except OSError as error:
                    # Half a file was announced: the conversation cannot go on.
                    sys.exit(f"{order['name']}: {error.strerror}")
                known.update(block)
                sink.write(block)
                left -= len(block)
            after = os.fstat(file.fileno())
        changed = (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
        return {"state": "changed" if changed or not same else "sent", "sha256": known.hexdigest()}


def _opened(path: Path) -> IO[bytes]:
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise RefusedError(f"{path} is not a file")
    return os.fdopen(number, "rb")


def _hashed(file: IO[bytes], most: int | None) -> Any:
    """Hash what a file holds from its beginning, up to `most` bytes; its position is behind that."""
    known = hashlib.sha256()
    while block := file.read(_BLOCK if most is None else min(_BLOCK, most - file.tell())):
        known.update(block)
    return known


def _sweep(folder: Path, mine: Path) -> None:
    """Delete what was begun here long ago and never went on."""
    for old in folder.glob(f"{PART}*.part"):
        if old != mine and old.lstat().st_mtime < time.time() - _STALE:
            old.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _become_comfyui(facts: dict[str, Any], known: dict[str, Path]) -> None:
    """Go on as ComfyUI's user, where it has one: what comes is its own, and its links lead nowhere that it may not go."""
    os.umask(0o002)
    if not facts.get("separate") or os.geteuid() != 0:
        return
    user = pwd.getpwnam("comfyui")
    voices = known["voices"]
    if known[""].is_dir() and not os.path.lexists(voices):
        # The volume's own top is not ComfyUI's to write in.
        voices.mkdir(0o775)
        os.chown(voices, user.pw_uid, user.pw_gid, follow_symlinks=False)
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)


def main(facts_file: str = FACTS) -> None:
    """Answer until the other side closes."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer

    def answer(message: dict[str, Any]) -> None:
        sink.write(json.dumps(message).encode() + b"\n")
        sink.flush()

    sink.write(GREETING)
    sink.flush()
    try:
        facts = json.loads(Path(facts_file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        facts = {}
    known = places(facts.get("env", {}))
    _become_comfyui(facts, known)
    place: Place | None = None
    while line := source.readline():
        order = json.loads(line)
        try:
            if order["do"] == "open":
                place = Place(*found(order["place"], known))
                answer({"state": "open", "folder": str(place.folder), "is_file": place.path("").is_file()})
            elif place is None:
                raise RefusedError("no place is open")
            elif order["do"] == "list":
                answer({"state": "list", "files": list(place.files())})
            elif order["do"] == "hash":
                answer({"state": "hash", "sha256": place.digest(order["name"])})
            elif order["do"] == "put":
                answer(place.receive(order, source, answer))
            elif order["do"] == "get":
                answer(place.send(order, sink, answer))
        except EOFError:
            return
        except RefusedError as error:
            answer({"state": "refused", "why": str(error)})
        except OSError as error:
            answer({"state": "refused", "why": f"{error.filename or 'the file'}: {error.strerror}"})


if __name__ == "__main__":
    main()
