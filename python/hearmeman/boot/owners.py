"""Gives the folders of the volume their owners and modes, never through a link that ComfyUI may have planted."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hearmeman.storage import nearest
from hearmeman.users import COMFYUI, FETCH, JUPYTER, STATE_GID, SYNC

_LINKS = 40
_DEEPEST = 100
_REFUSED = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EROFS)
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Folder:
    """A folder, and whom it is to belong to."""

    path: str
    """Where it is."""
    uid: int
    """Its owner, where it has none of its own: one that root or ComfyUI owns is given to this one."""
    gid: int
    """Its group."""
    mode: int
    """Its mode, or with `adds` what its mode is to hold beside what is there."""
    adds: bool = False
    """Whether the mode is added to."""


class PlantedError(OSError):
    """A link that ComfyUI made stands where a folder is expected."""


def top(path: str) -> Folder:
    """The volume itself: sticky, so that ComfyUI can add to it and cannot rename what is not its own."""
    return Folder(path, 0, COMFYUI.gid, 0o1775, adds=True)


def of_root(path: str) -> Folder:
    """A folder that only root writes to."""
    return Folder(path, 0, 0, 0o755)


def of_state(path: str) -> Folder:
    """The pod's state: the sync and the fetch write there, each its own files."""
    return Folder(path, 0, STATE_GID, 0o1775)


def of_fetch(path: str) -> Folder:
    """What the fetch notes for every pod on the volume, and ComfyUI must not write: with it goes what tokens are used for."""
    return Folder(path, FETCH.uid, FETCH.gid, 0o755)


def of_jupyter(path: str) -> Folder:
    """JupyterLab's own settings."""
    return Folder(path, JUPYTER.uid, JUPYTER.gid, 0o700)


def of_comfyui(path: str) -> Folder:
    """A folder of ComfyUI's; what anybody makes in it gets its group."""
    return Folder(path, COMFYUI.uid, COMFYUI.gid, 0o2775, adds=True)


def settle(folder: Folder) -> str:
    """Make the folder where it is missing and give it its owner; why that was refused, or nothing.

    A link that ComfyUI made in the way of a folder of its own is used with its rights alone; where the folder is root's,
    the link is set aside.

    Raises:
        OSError: it cannot be made.
    """
    try:
        with open_folder(folder.path, folder) as descriptor:
            return _give(descriptor, folder)
    except PlantedError as error:
        with contextlib.suppress(OSError), acting_as_comfyui():
            Path(folder.path).mkdir(parents=True, exist_ok=True)
        return error.strerror or "ComfyUI made a link"


@contextlib.contextmanager
def open_folder(path: str, make: Folder | None = None) -> Iterator[int]:
    """Open a folder component by component; links are followed where root or a person made them.

    With `make` what is missing is made, each as `make` says.

    Raises:
        PlantedError: a component is a link that ComfyUI owns.
        OSError: it is not there, or no folder.
    """
    here = os.open("/", _OPEN)
    try:
        left, links = deque(Path(os.path.abspath(path)).parts[1:]), 0  # noqa: PTH100
        while left:
            name = left.popleft()
            try:
                below = _enter(here, name, make)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                if make is not None and not make.adds and _is_planted(here, name):
                    os.rename(name, f"{name}.set-aside-{time.time_ns()}", src_dir_fd=here, dst_dir_fd=here)
                    left.appendleft(name)
                    continue
                target = _target(here, name, path)
                links += 1
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from error
                left.extendleft(reversed([part for part in Path(target).parts if part != "/"]))
                below = os.open("/", _OPEN) if target.startswith("/") else os.dup(here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _enter(here: int, name: str, make: Folder | None) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=here)
    except FileNotFoundError:
        if make is None:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=here)
    below = os.open(name, _OPEN, dir_fd=here)
    _give(below, make)
    return below


def _is_planted(here: int, name: str) -> bool:
    seen = os.stat(name, dir_fd=here, follow_symlinks=False)
    return stat.S_ISLNK(seen.st_mode) and seen.st_uid == COMFYUI.uid


def _target(here: int, name: str, path: str) -> str:
    found = os.stat(name, dir_fd=here, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, f"{name} is not a folder", path)
    target = os.readlink(name, dir_fd=here)
    if found.st_uid == COMFYUI.uid:
        raise PlantedError(errno.ELOOP, f"{name} is a link to {target} that ComfyUI or one of its nodes made", path)
    return target


def _give(descriptor: int, folder: Folder) -> str:
    seen = os.fstat(descriptor)
    uid = folder.uid if seen.st_uid in (0, COMFYUI.uid) or not folder.adds else seen.st_uid
    mode = stat.S_IMODE(seen.st_mode)
    wanted = mode | folder.mode if folder.adds else folder.mode
    try:
        if (seen.st_uid, seen.st_gid) != (uid, folder.gid):
            os.fchown(descriptor, uid, folder.gid)
        if mode != wanted:
            os.fchmod(descriptor, wanted)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        return error.strerror or "refused"
    seen = os.fstat(descriptor)
    there = (seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode))
    return "" if there == (uid, folder.gid, wanted) else "the filesystem keeps neither owners nor modes"


@contextlib.contextmanager
def acting_as_comfyui() -> Iterator[None]:
    """Do what follows with ComfyUI's rights alone; for a process with one thread that is root."""
    groups = os.getgroups()
    umask = os.umask(COMFYUI.umask)
    os.setgroups([])
    os.setegid(COMFYUI.gid)
    os.seteuid(COMFYUI.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
        os.umask(umask)


@dataclass(frozen=True)
class Answer:
    """How a filesystem took it when a file was to be given away."""

    refused: str = ""
    """Why it cannot keep owners; empty if it can."""
    shared: bool = True
    """Whether ComfyUI's user can write there."""


def probe(path: Path) -> Answer:
    """Try on the nearest folder that exists whether files can be given away; nothing is left behind."""
    try:
        with tempfile.TemporaryDirectory(prefix=".hearmeman-probe-", dir=nearest(path)) as folder:
            refused = settle(of_comfyui(folder))
            if not refused:
                return Answer()
            try:
                with acting_as_comfyui():
                    Path(folder, "probe").touch()
            except OSError:
                return Answer(refused, shared=False)
            return Answer(refused)
    except OSError:
        return Answer()  # It cannot be written at all: the plan says so.


def settle_state(path: str) -> None:
    """Give the files of the state folder to those who write them, whoever did so before."""
    with open_folder(path) as folder, os.scandir(folder) as entries:
        for entry in entries:
            uid = (
                FETCH.uid
                if entry.name.startswith("models")
                else SYNC.uid
                if entry.name.startswith(("sync", "workspace"))
                else None
            )
            seen = entry.stat(follow_symlinks=False)
            if uid is not None and stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1 and seen.st_uid != uid:
                with contextlib.suppress(OSError):
                    os.chown(entry.name, uid, STATE_GID, dir_fd=folder, follow_symlinks=False)


def repair(path: str, only_folders: bool = False, depth: int = _DEEPEST) -> tuple[int, int]:
    """Give what an older pod or a person left below `path` to ComfyUI: (changed, could not be changed).

    What root owns becomes ComfyUI's; another owner stays, and the group becomes ComfyUI's. Files with several names are
    left alone: one of them may lie where ComfyUI has no business.
    """
    done = [0, 0]
    with contextlib.suppress(FileNotFoundError), open_folder(path) as start:
        _repair_below(start, os.fstat(start).st_dev, only_folders, done, depth)
    return done[0], done[1]


def _repair_below(here: int, device: int, only_folders: bool, done: list[int], depth: int) -> None:
    below = []
    with os.scandir(here) as entries:
        for entry in entries:
            try:
                seen = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(seen.st_mode) and seen.st_dev == device:
                    below.append((entry.name, _is_amiss(seen)))
                elif stat.S_ISREG(seen.st_mode) and not only_folders and _is_amiss(seen):
                    done[0] += _repair_file(here, entry.name)
            except OSError:
                done[1] += 1
    for name, amiss in below:
        try:
            folder = os.open(name, _OPEN, dir_fd=here)
        except OSError:
            done[1] += 1
            continue
        try:
            if amiss:
                done[1 if _give(folder, of_comfyui("")) else 0] += 1
            if depth > 0:
                _repair_below(folder, device, only_folders, done, depth - 1)
        except OSError:
            done[1] += 1
        finally:
            os.close(folder)


def _is_amiss(seen: os.stat_result) -> bool:
    bits = 0o2070 if stat.S_ISDIR(seen.st_mode) else 0o060
    return seen.st_uid == 0 or seen.st_gid != COMFYUI.gid or seen.st_mode & bits != bits


def _repair_file(here: int, name: str) -> int:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    try:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode) or seen.st_nlink > 1:
            return 0
        # By the open file, whatever its name leads to now.
        itself = f"/proc/self/fd/{descriptor}"
        mode = stat.S_IMODE(seen.st_mode)
        os.chown(itself, COMFYUI.uid if seen.st_uid == 0 else -1, COMFYUI.gid)
        os.chmod(itself, mode & ~0o6000 | 0o060 | (0o010 if mode & 0o100 else 0))  # noqa: PTH101
        return 1
    finally:
        os.close(descriptor)
