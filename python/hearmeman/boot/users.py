"""Who runs what: processes with secrets have their own uid, foreign code runs without capabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class User:
    """How a process is run."""

    name: str
    """What `boot --plan` calls it."""
    uid: int
    """Its uid; its gid is 0, so that what it writes can be written by root without capabilities too."""
    keeps: tuple[str, ...] = ()
    """Capabilities that it keeps, as setpriv spells them; all others are gone for good."""
    whole: bool = False
    """Whether nothing is taken from it."""


ROOT = User("root", 0, whole=True)
BARE = User("root without capabilities", 0)
DOOR = User("hearmeman-door", 990, ("net_bind_service",))
SYNC = User("hearmeman-sync", 991, ("dac_override",))
FETCH = User("hearmeman-fetch", 992, ("dac_override",))
USERS = (DOOR, SYNC, FETCH)
"""Those that have a line in the image's /etc/passwd.

Root without capabilities cannot read another uid's files, nor the memory and environment of a process that has more
capabilities than itself; so what these hold is out of reach of ComfyUI and its nodes.
"""

_NEEDED = {"chown": 0, "dac_override": 1, "fowner": 3, "kill": 5, "setgid": 6, "setuid": 7, "setpcap": 8}


def why_not_separate(status: str, uid_map: str, has_setpriv: bool) -> str:
    """Tell from /proc/self/status and uid_map why processes cannot be given users of their own; empty if they can."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if (fields.get("Uid") or "1").split()[:1] != ["0"]:
        return "it does not run as root"
    effective = int((fields.get("CapEff") or "0").strip(), 16)
    missing = [name for name, bit in _NEEDED.items() if not effective >> bit & 1]
    if missing:
        return f"the container lacks the capabilities {', '.join(missing)}"
    ranges = [[int(word) for word in line.split()] for line in uid_map.splitlines() if len(line.split()) == 3]
    if not all(any(first <= user.uid < first + count for first, _, count in ranges) for user in USERS):
        return "the container's user namespace has too few users"
    return "" if has_setpriv else "setpriv is not installed"


def wrapped(argv: Sequence[str], user: User) -> tuple[str, ...]:
    """Put setpriv before a command, so that it runs as `user`."""
    if user.whole:
        return tuple(argv)
    kept = ",".join(["-all", *(f"+{name}" for name in user.keeps)])
    command = ["setpriv", "--reuid", str(user.uid), "--regid", "0", "--clear-groups"]
    command += ["--inh-caps", kept, "--ambient-caps", kept, "--bounding-set", kept, "--no-new-privs"]
    # A change of user clears what the wrapper asked for: that this dies with it.
    command += ["--pdeathsig", "KILL"]
    return (*command, *argv)
