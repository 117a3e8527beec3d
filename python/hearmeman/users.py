"""Who runs what: ComfyUI has a uid and a gid of its own, processes with secrets have others, and none of them is root."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hearmeman.state_file import read_json


@dataclass(frozen=True)
class User:
    """How a process is run."""

    name: str
    """What /etc/passwd and `boot --plan` call it."""
    uid: int
    """Its uid."""
    gid: int
    """Its gid."""
    groups: tuple[int, ...] = ()
    """Its further groups."""
    keeps: tuple[str, ...] = ()
    """Capabilities that it keeps, as setpriv spells them; all others are gone for good."""
    umask: int = 0o022
    """Its umask; 002 where what it writes is ComfyUI's to change."""
    whole: bool = False
    """Whether nothing is taken from it."""


ROOT = User("root", 0, 0, whole=True)
COMFYUI = User("comfyui", 993, 993, umask=0o002)
"""ComfyUI, its nodes, notebooks, terminals and the voices: code that comes from anywhere. It owns its part of the volume."""
DOOR = User("hearmeman-door", 990, 990, keeps=("net_bind_service",))
SYNC = User("hearmeman-sync", 991, 991, groups=(COMFYUI.gid,), keeps=("dac_override",))
"""It reads outputs whatever their mode: some nodes write files that only their owner may read."""
WORKSPACE = replace(SYNC, keeps=("chown", "dac_override"))
"""It brings ComfyUI's own files back, which are to be ComfyUI's again; it ends when they are there."""
FETCH = User("hearmeman-fetch", 992, COMFYUI.gid, groups=(SYNC.gid,), umask=0o002)
"""Its files are ComfyUI's by their group; it shares the state folder with the sync."""
JUPYTER = User("hearmeman-jupyter", 994, COMFYUI.gid, keeps=("kill", "setgid", "setpcap", "setuid"), umask=0o002)
"""JupyterLab's server, which knows its token; it starts notebooks and terminals as ComfyUI's user, and ends them."""
IDLE = User("hearmeman-idle", 996, 996)
"""It has the key that can end the pod, and writes nowhere but in its own folder."""
WORKER = User("hearmeman-worker", 995, 995, groups=(SYNC.gid,))
"""It takes RunPod's jobs, and holds the keys for that and for the bucket; it keeps its report in the state folder."""
STATE_GID = SYNC.gid
"""The group that may write in the pod's state folder: the sync's and the fetch's."""
USERS = (DOOR, SYNC, FETCH, COMFYUI, JUPYTER, WORKER, IDLE)
"""Those that have a line in the image's /etc/passwd."""

SETPRIV = "/usr/bin/setpriv"
"""By its place: root looks for it along no PATH, which may lead to what ComfyUI can write."""
_NEEDED = {"chown": 0, "dac_override": 1, "fowner": 3, "fsetid": 4, "kill": 5, "setgid": 6, "setuid": 7, "setpcap": 8}


def why_not_separate(status: str, uid_map: str, has_setpriv: bool, gid_map: str = "0 0 4294967295") -> str:
    """Tell from /proc/self/{status,uid_map,gid_map} why processes cannot be given users of their own; empty if they can."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if (fields.get("Uid") or "1").split()[:1] != ["0"]:
        return "it does not run as root"
    effective = int((fields.get("CapEff") or "0").strip(), 16)
    missing = [name for name, bit in _NEEDED.items() if not effective >> bit & 1]
    if missing:
        return f"the container lacks the capabilities {', '.join(missing)}"
    uids, gids = _ranges(uid_map), _ranges(gid_map)
    if not all(_within(user.uid, uids) and _within(user.gid, gids) for user in USERS):
        return "the container's user namespace has too few users"
    return "" if has_setpriv else "setpriv is not installed"


def _ranges(text: str) -> list[tuple[int, int]]:
    lines = [[int(word) for word in line.split()] for line in text.splitlines() if len(line.split()) == 3]
    return [(first, first + count) for first, _, count in lines]


def _within(number: int, ranges: list[tuple[int, int]]) -> bool:
    return any(first <= number < end for first, end in ranges)


def wrapped(argv: Sequence[str], user: User) -> tuple[str, ...]:
    """Put setpriv before a command, so that it runs as `user`."""
    if user.whole:
        return tuple(argv)
    kept = ",".join(["-all", *(f"+{name}" for name in user.keeps)])
    groups = ["--groups", ",".join(map(str, user.groups))] if user.groups else ["--clear-groups"]
    command = [SETPRIV, "--reuid", str(user.uid), "--regid", str(user.gid), *groups]
    command += ["--inh-caps", kept, "--ambient-caps", kept, "--bounding-set", kept, "--no-new-privs"]
    # A change of user clears what the wrapper asked for: that this dies with it.
    command += ["--pdeathsig", "KILL"]
    return (*command, *argv)


def is_separate(run_dir: Path) -> bool:
    """Tell whether the pod that was booted here runs its processes as users of their own."""
    return bool(read_json(run_dir / "comfyui.json").get("separate"))


def become(user: User, argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Replace this process by `argv` run as `user`; needs root, or what JupyterLab's server keeps."""
    os.umask(user.umask)
    command = wrapped(argv, user)
    os.execvpe(command[0], command, dict(environ))
