"""`hearmeman-pod put | get | sync`: pictures, voices and LoRAs into a running pod, and outputs home.

By SSH on the pod's own port and not by SFTP or rsync: RunPod's SSH proxy has neither, a Mac's rsync cannot give files to
another user, and only a program at the other end can compare hashes and name a file when it is whole.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

from hearmeman import terminal
from hearmeman_pod import there, verbs
from hearmeman_pod.courier import Courier, FileError, LostError, direct_words
from hearmeman_pod.errors import PodError, UsageError
from hearmeman_pod.say import Talk, say
from hearmeman_pod.world import World

PARTLY = 3
TRIES = 5
PAUSE = 2.0
"""Seconds before a broken connection is made again, doubled each time."""
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Item:
    """One file, before anything is done with it."""

    path: Path
    """Here."""
    name: str
    """Below the place in the pod; empty where the place is the file."""
    size: int = 0
    """Bytes; of the pod's file when it is brought home."""
    mtime_ns: int = 0


@dataclasses.dataclass(frozen=True)
class Moved:
    """What became of one file."""

    name: str
    """Its path here."""
    state: str
    """sent, present, changed (written meanwhile: ask again) or failed."""
    size: int
    """Bytes."""
    why: str = ""
    """Why it failed."""


def add(sub: argparse.ArgumentParser, verb: str) -> None:
    """Add the arguments of put, get or sync."""
    where = f"POD:PLACE; a place is {', '.join(there.PLACES)}, a folder below one, or a path on the volume"
    if verb == "put":
        sub.add_argument("files", nargs="+", type=Path, metavar="FILE", help="files and folders of this machine")
        sub.add_argument("to", metavar="POD:PLACE", help=where)
    elif verb == "get":
        sub.add_argument("source", metavar="POD:PLACE", help=where)
        sub.add_argument("out", type=Path, metavar="DIR", help="folder here")
    else:
        sub.add_argument("source", metavar="FROM", help=f"a folder here, or {where}")
        sub.add_argument("to", metavar="TO", help="the destination: what differs there is replaced, nothing is deleted")
        sub.add_argument("--watch", type=float, metavar="S", help="look again every S seconds, until Ctrl-C")
    if verb != "sync":
        sub.add_argument("--replace", action="store_true", help="replace existing files that differ")
    add_key(sub)


def add_key(sub: argparse.ArgumentParser) -> None:
    """Add what ssh is told: the key, and a configuration."""
    sub.add_argument("-i", "--identity", type=Path, metavar="FILE", help="the SSH key (ssh's own choice)")
    sub.add_argument("-F", dest="ssh_config", type=Path, metavar="FILE", help="another configuration for ssh")


def put(args: argparse.Namespace, world: World) -> int:
    """Send files and folders to a place of a pod."""
    items = list(_here(args.files))
    return _Mover(args, world, args.to, args.replace).report(lambda mover: mover.send(items))


def get(args: argparse.Namespace, world: World) -> int:
    """Bring a place of a pod home."""
    return _Mover(args, world, args.source, args.replace).report(lambda mover: mover.bring(args.out))


def sync(args: argparse.Namespace, world: World) -> int:
    """Make one side have what the other has."""
    if args.watch is not None and not args.watch > 0:
        raise UsageError("--watch takes seconds above 0")
    ends = [_is_pod(args.source), _is_pod(args.to)]
    if ends[0] == ends[1]:
        raise UsageError("sync takes a folder here and POD:PLACE, in the order FROM TO; ./a:b is a folder here")
    mover = _Mover(args, world, args.source if ends[0] else args.to, True)
    while True:
        if ends[0]:
            code = mover.report(lambda mover: mover.bring(Path(args.to)))
        else:
            code = mover.report(lambda mover: mover.send(list(_here([Path(args.source)], inside=True))))
        if args.watch is None:
            return code
        time.sleep(args.watch)


class _Mover:
    """One pod's place, a connection to it that is made again where it breaks, and what became of each file."""

    def __init__(self, args: argparse.Namespace, world: World, where: str, replace: bool) -> None:
        self.json, self.replace = args.json, replace
        name, self.place = _place(where)
        pod = verbs.find(world.api(), name)
        self.pod_id = str(pod["id"])
        self.argv = direct_words(pod, world.home, args.identity, args.ssh_config)
        self.courier: Courier | None = None
        self.moved: list[Moved] = []

    def report(self, work: Callable[[_Mover], None]) -> int:
        """Do it and print what became of it; the exit code."""
        self.moved = []
        try:
            self._again(lambda courier: None)
            work(self)
        finally:
            self._close()
        failed = [one for one in self.moved if one.state in ("failed", "changed")]
        sent = [one for one in self.moved if one.state == "sent"]
        if self.json:
            facts = [dataclasses.asdict(one) for one in self.moved]
            print(json.dumps({"pod": self.pod_id, "place": self.place, "files": facts}), flush=True)
        else:
            total = terminal.size(sum(one.size for one in sent))
            present = len(self.moved) - len(sent) - len(failed)
            print(
                f"{len(sent)} sent, {total}; {present} already there" + (f"; {len(failed)} failed" if failed else ""),
                flush=True,
            )
        return (PARTLY if len(failed) < len(self.moved) else 1) if failed else 0

    def send(self, items: list[Item]) -> None:
        """Send files."""
        if self._again(lambda courier: courier.is_file):
            raise UsageError(f"{self.place} is a file in the pod: name the folder that it lies in")
        for item in items:
            self._each(item, self._send)

    def bring(self, out: Path) -> None:
        """Bring the place's files into the folder `out`."""
        listed = self._again(lambda courier: courier.files())
        for name, size, mtime_ns in listed:
            path = out / _safe(name or PurePosixPath(self.place).name)
            self._each(Item(path, name, size, mtime_ns), self._bring)

    def _each(self, item: Item, do: Callable[[Item], Moved]) -> None:
        try:
            moved = do(item)
        except FileError as error:
            moved = Moved(str(item.path), "failed", item.size, str(error))
        except OSError as error:
            moved = Moved(str(item.path), "failed", item.size, f"{error.filename or item.path}: {error.strerror}")
        if moved.state != "present":
            why = f": {moved.why}" if moved.why else f", {terminal.size(moved.size)}"
            say(terminal.plain(f"{moved.name} {moved.state}{why}"))
        self.moved.append(moved)

    def _send(self, item: Item) -> Moved:
        with item.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = item.path.stat().st_size
        talk = Talk(str(item.path), size)
        state = self._again(lambda courier: courier.put(item.path, item.name, sha256, self.replace, talk))
        return Moved(str(item.path), *_other(state, size, f"{self.place}/{item.name}", "rename yours"))

    def _bring(self, item: Item) -> Moved:
        if item.path.is_symlink() or (item.path.exists() and not item.path.is_file()):
            return Moved(str(item.path), "failed", item.size, "what has this name here is not a file")
        if item.path.exists():
            if item.path.stat().st_size == item.size:
                theirs = self._again(lambda courier: courier.digest(item.name))
                with item.path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() == theirs:
                        return Moved(str(item.path), "present", item.size)
            if not self.replace:
                return Moved(str(item.path), *_other("other", item.size, str(item.path), "another folder"))
        item.path.parent.mkdir(parents=True, exist_ok=True)
        version = hashlib.sha256(f"{item.path.name}/{item.size}/{item.mtime_ns}".encode(errors="surrogateescape"))
        part = item.path.parent / f"{there.PART}{version.hexdigest()[:32]}.part"
        talk = Talk(str(item.path), item.size)
        state = self._again(lambda courier: courier.get(item.name, item.size, item.mtime_ns, part, talk))
        if state == "changed":
            part.unlink()
            return Moved(str(item.path), state, item.size, "it is being written in the pod: fetch it again")
        os.utime(part, ns=(item.mtime_ns, item.mtime_ns))
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(item.path)
        return Moved(str(item.path), state, item.size)

    def _again(self, order: Callable[[Courier], T]) -> T:
        """Carry an order out; where the connection breaks, make it again and go on with what has come."""
        for number in range(1, TRIES + 1):
            try:
                if self.courier is None:
                    self.courier = Courier(self.argv, self.place, self.pod_id).__enter__()
                return order(self.courier)
            except LostError as error:
                self._close()
                if number == TRIES:
                    raise PodError(f"{error}\nRun the same command again to continue.") from error
                say(f"{str(error).splitlines()[0]}: once more")
                time.sleep(PAUSE * 2 ** (number - 1))
        raise AssertionError("unreachable")

    def _close(self) -> None:
        if self.courier is not None:
            self.courier.close()
            self.courier = None


def _other(state: str, size: int, where: str, way: str) -> tuple[str, int, str]:
    if state != "other":
        return state, size, ""
    return "failed", size, f"{where} is there with different content: give --replace, or {way}"


def _here(paths: list[Path], inside: bool = False) -> Iterator[Item]:
    """Files of this machine and their names in the pod; a folder's keep its name, unless its inside is meant.

    Raises:
        UsageError: one cannot be read, or two would have one name.
    """
    taken: dict[str, Path] = {}
    for path in paths:
        if path.is_file() and not inside:
            found = [(path, path.name)]
        elif path.is_dir():
            base = path if inside else path.resolve().parent
            found = [(one, (one if inside else one.resolve()).relative_to(base).as_posix()) for one in _below(path)]
        else:
            raise UsageError(f"{path} is not a {'folder' if inside else 'file or folder'} on this machine")
        for one, name in found:
            if name in taken:
                raise UsageError(
                    f"{taken[name]} and {one} would both be {name} in the pod: rename one, or send it elsewhere"
                )
            if not os.access(one, os.R_OK):
                raise UsageError(f"{one} cannot be read")
            taken[name] = one
            yield Item(one, name, one.stat().st_size)


def _below(folder: Path) -> Iterator[Path]:
    """Files below a folder; hidden ones and links are left out."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(parent, name) for name in sorted(names) if not name.startswith(".")):
            if path.is_file() and not path.is_symlink():
                yield path


def _is_pod(text: str) -> bool:
    return ":" in text and "/" not in text.partition(":")[0]


def _place(text: str) -> tuple[str, str]:
    """Read POD:PLACE.

    Raises:
        UsageError: it is not that, or there is no such place.
    """
    pod, colon, place = text.partition(":")
    place = place.rstrip("/") if place != "/" else place
    if not pod or not colon or not place:
        raise UsageError(f"{text or 'nothing'} is not POD:PLACE, such as film:input or film:models/loras")
    if ".." in place.split("/") or "\0" in place:
        raise UsageError(f"{place} may lead outside: write the path without ..")
    if not place.startswith("/") and place.split("/")[0] not in there.PLACES:
        raise UsageError(
            f"there is no place {place}: give {', '.join(there.PLACES)}, a folder below one such as "
            "models/loras, or a path "
            "on the volume such as /workspace/film"
        )
    return pod, place


def _safe(name: str) -> PurePosixPath:
    """Take a name that a pod gave: it leads nowhere else.

    Raises:
        PodError: it does.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in name:
        raise PodError(f"the pod names a file {name!r}, which leads out of the folder here: nothing was copied")
    return path
