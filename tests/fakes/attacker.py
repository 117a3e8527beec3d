"""Stands in ComfyUI's place and tries to become another user: all that code in ComfyUI's process could try from inside."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

VOLUME = Path("/workspace")
OWN = VOLUME / "ComfyUI"
EVIL = OWN / "evil"
PWNED = OWN / "pwned"
SEEN = OWN / "seen.json"
RUN = Path("/run/hearmeman")
STATE = VOLUME / ".hearmeman/local"
THEIRS = (OWN, VOLUME / ".cache", VOLUME / ".hearmeman/comfyui", VOLUME / "voices")
"""What is ComfyUI's, with all that is in it: the voice servers run as its user."""

NOTE = f"""
import os, sys
try:
    open(f"{PWNED}/{{os.geteuid()}}-{{os.getpid()}}", "w").write(" ".join(sys.argv))
except OSError:
    pass
"""
"""Python that leaves a note of who ran it."""
SHELL_NOTE = f'echo "$0 $@" > {PWNED}/$(/usr/bin/id -u)-$$\n'
MODULES = (
    "sitecustomize",
    "usercustomize",
    "hearmeman",
    "argparse",
    "json",
    "supervisor",
    "pydantic",
    "ipykernel_launcher",
)
PROGRAMS = ("setpriv", "nginx", "ssh-keygen", "sshd", "bash", "sh", "git", "pip", "python", "python3", "id", "nice")


def plant() -> None:
    """Put code wherever somebody else might take it from."""
    for folder in (EVIL, OWN, VOLUME, VOLUME / ".hearmeman/comfyui/home/.local/lib/python3.11/site-packages"):
        folder.mkdir(parents=True, exist_ok=True)
        for module in MODULES:
            (folder / f"{module}.py").write_text(NOTE)
        (folder / "evil.pth").write_text(f"import sys; exec({NOTE!r})\n")
    (EVIL / "bin").mkdir(exist_ok=True)
    for program in PROGRAMS:
        path = EVIL / "bin" / program
        path.write_text(f'#!/bin/sh\n{SHELL_NOTE}exec /usr/bin/{program} "$@"\n')
        path.chmod(0o755)
    (EVIL / "env.sh").write_text(SHELL_NOTE)
    (EVIL / "aws").write_text(f"[default]\ncredential_process = {EVIL}/bin/id\n")
    home = VOLUME / ".hearmeman/comfyui/home"
    for name in (".bashrc", ".profile", ".bash_profile"):
        (home / name).write_text(SHELL_NOTE)
    (home / ".gitconfig").write_text(f"[core]\n\thooksPath = {EVIL}/bin\n")


def links() -> None:
    """Put links to what is others' in the folders that they write into and read from."""
    targets = {
        OWN / "output/key.png": RUN / "env/sync.json",
        OWN / "output/folder": RUN / "env",
        OWN / "output/root": Path("/root"),
        OWN / "models/linked": Path("/etc"),
        OWN / "models/.hearmeman/staging/linked": RUN / "env",
        OWN / "node_data/linked": RUN,
        OWN / "user/linked": RUN / "gate",
        VOLUME / "linked": Path("/etc/passwd"),
    }
    for link, target in targets.items():
        with contextlib.suppress(OSError):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)


def attempts() -> Iterator[tuple[str, object]]:
    """What must fail: (what it is, what does it)."""
    yield "rename env", lambda: (RUN / "env").rename(RUN / "env.old")
    yield "rename run", lambda: RUN.rename("/run/old")
    for path in (
        RUN / "shell.env",
        RUN / "supervisord.conf",
        RUN / "comfyui.json",
        RUN / "boot.json",
        RUN / "extra_model_paths.yaml",
        RUN / "share/jupyter/kernels/comfyui/kernel.json",
        Path("/root/.bashrc"),
        Path("/root/.ssh/authorized_keys"),
        RUN / "ssh/authorized_keys",
        RUN / "ssh/sshd_config",
        RUN / "gate/nginx.conf",
        Path("/etc/profile.d/evil.sh"),
        Path("/etc/cron.d/evil"),
        Path("/etc/ld.so.preload"),
        Path("/etc/passwd"),
        Path("/opt/env/runtime/lib/python3.11/site-packages/hearmeman/cli.py"),
        Path("/opt/env/runtime/lib/python3.11/site-packages/evil.pth"),
        STATE / "logs/comfyui.log",
        STATE / "logs/sync.log",
        STATE / "models.json",
        STATE / "boot.json",
        STATE / "new",
        VOLUME / ".hearmeman/new",
        VOLUME / ".hearmeman/jupyter/settings/new",
    ):
        yield f"write {path}", lambda path=path: path.open("ab").close()
    for path in (VOLUME / ".hearmeman", STATE, STATE / "logs", VOLUME / ".hearmeman/comfyui", STATE / "logs/sync.log"):
        yield f"rename {path}", lambda path=path: path.rename(path.with_name("moved"))
    for path in (VOLUME, VOLUME / ".hearmeman", STATE, STATE / "logs"):
        yield f"chmod {path}", lambda path=path: path.chmod(0o777)
    for path in (
        RUN / "env/models.json",
        RUN / "supervisord.conf",
        STATE / "ssh/ssh_host_ed25519_key",
        RUN / "jupyter",
    ):
        yield f"read {path}", lambda path=path: list(path.iterdir()) if path.suffix == "" else path.read_bytes()
    for path in (RUN / "supervisor.sock", RUN / "gate/door.sock"):
        yield f"connect {path}", lambda path=path: socket.socket(socket.AF_UNIX).connect(str(path))
    yield "setuid", lambda: os.setuid(0)
    yield "setgid", lambda: os.setgid(0)
    yield "chroot", lambda: os.chroot("/workspace")
    yield "hard link", lambda: os.link("/etc/passwd", "/tmp/passwd")


def processes() -> Iterator[str]:
    """What can be done to processes of others: read their memory and environment, trace, signal and change them."""
    libc = ctypes.CDLL(None, use_errno=True)
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.geteuid() and _uid(folder) == os.geteuid():
                continue
            for name in ("environ", "mem", "maps", "cwd/.", "root/.", "fd/1"):
                with contextlib.suppress(OSError):
                    if name.endswith("."):
                        list((folder / name).iterdir())
                    else:
                        (folder / name).open("rb").read(1)
                    yield f"open {folder / name} of {_command(folder)}"
            if libc.ptrace(16, pid, 0, 0) == 0:  # PTRACE_ATTACH
                yield f"trace {_command(folder)}"
            for number in (signal.SIGCONT, signal.SIGKILL):
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
                    yield f"signal {_command(folder)}"
            with contextlib.suppress(OSError):
                (folder / "oom_score_adj").write_text("1000")
                yield f"oom_score_adj of {_command(folder)}"


def _uid(folder: Path) -> int:
    line = next(x for x in (folder / "status").read_text().splitlines() if x.startswith("Uid:"))
    return int(line.split()[2])


def _command(folder: Path) -> str:
    return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def writable() -> Iterator[str]:
    """Name what its owner and mode let this user write, outside of what is ComfyUI's; a read-only mount hides nothing."""
    allowed = {str(path) for path in THEIRS} | {"/proc", "/sys", "/dev"}
    for top, names, leaves in os.walk("/"):
        names[:] = [name for name in names if str(Path(top, name)) not in allowed]
        for path in (Path(top, name) for name in [*names, *leaves]):
            with contextlib.suppress(OSError):
                seen = path.lstat()
                if stat.S_ISLNK(seen.st_mode):
                    continue
                mine = (seen.st_uid == os.geteuid()) * stat.S_IWUSR
                group = (seen.st_gid in {os.getegid(), *os.getgroups()}) * stat.S_IWGRP
                # Sticky folders that all may write to keep each one's files apart.
                shared = stat.S_ISDIR(seen.st_mode) and seen.st_mode & stat.S_ISVTX and seen.st_uid == 0
                if seen.st_mode & (mine | group | stat.S_IWOTH) and not shared:
                    yield str(path)


def main() -> None:
    """Plant, try, write down what worked, and stay."""
    PWNED.mkdir(exist_ok=True)
    PWNED.chmod(0o1777)
    plant()
    links()
    found = []
    while not (OWN / "go").exists():
        time.sleep(0.05)
    for name, action in attempts():
        try:
            action()  # type: ignore[operator]
        except OSError:
            continue
        found.append(name)
    found += list(processes())
    # What it planted at the volume's top itself is no finding.
    own = {str(VOLUME / f"{module}.py") for module in MODULES} | {str(VOLUME / "evil.pth")}
    found += [f"may write {path}" for path in writable() if path not in own]
    status = Path("/proc/self/status").read_text()
    beside = SEEN.with_suffix(".tmp")
    beside.write_text(json.dumps({"found": found, "status": status, "argv": sys.argv}))
    beside.rename(SEEN)
    time.sleep(600)


if __name__ == "__main__":
    main()
