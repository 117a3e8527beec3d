"""Keeps a pod that cannot boot open: RunPod would start it again and again, and bill for it, with nobody the wiser."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hearmeman.errors import HearmemanError
from hearmeman.log import log
from hearmeman.state_file import write_json
from hearmeman.users import DOOR, IDLE, ROOT, SETPRIV, User, why_not_separate, wrapped

REMIND_SECONDS = 600.0
AGAIN_SECONDS = 5.0
"""Pause before something that died is started again."""
_SHELL = """# Written by hearmeman boot: this pod could not start.
case $- in *i*) cat {reason} >&2 ;; esac
"""


@dataclass(frozen=True)
class Held:
    """What is kept open."""

    listens: tuple[tuple[str, int], ...]
    """Addresses and ports that show the reason."""
    ssh_port: int
    """sshd's port."""
    authorized_keys: tuple[str, ...]
    """SSH public keys that may log in; sshd is started if there is one."""
    ends: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables of the process that ends the pod when nobody is logged in; empty where nobody asked for that, or it cannot."""


_ENDS = (
    "IDLE_STOP_MINUTES",
    "MAX_MINUTES",
    "IDLE_ACTION",
    "RUNPOD_API_KEY",
    "RUNPOD_API_URL",
    "RUNPOD_POD_ID",
    "RUNPOD_VOLUME_ID",
)
UNREADABLE_MINUTES = "30"
"""Takes the place of an IDLE_STOP_MINUTES that cannot be read."""


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Tell whether HOLD_ON_ERROR asks for it; 'auto', or what cannot be read, means: where RunPod runs the pod."""
    wish = str(_setting(environ, "hold_on_error"))
    return wish == "true" or (wish == "auto" and bool(environ.get("RUNPOD_POD_ID")))


def plan(environ: Mapping[str, str]) -> Held:
    """Find what to keep open; a variable that cannot be read counts as unset, since any may be the wrong one."""
    from hearmeman.settings import Settings

    names = ("public_key", "ssh_public_key")
    keys = Settings.model_validate({name: _setting(environ, name) for name in names}).authorized_keys
    ports = {(host, port) for host, port in (*_of(environ, "status"), *_of(environ, "comfyui"))}
    return Held(tuple(sorted(ports)), int(_setting(environ, "ssh_port")), keys, _ends(environ))


def _ends(environ: Mapping[str, str]) -> dict[str, str]:
    from hearmeman.settings import canonical, parse

    given = {name: text for name, text in canonical(environ).items() if name in _ENDS}
    wrong = {problem.name for problem in parse(given)[1]}
    found = {name: text for name, text in given.items() if name not in wrong}
    if wrong & {"IDLE_STOP_MINUTES", "MAX_MINUTES"}:
        # A limit was wanted, and which one is not known.
        found.setdefault("IDLE_STOP_MINUTES", UNREADABLE_MINUTES)
    settings, _ = parse(found)
    return found if settings and settings.ends_by_itself else {}


def _of(environ: Mapping[str, str], name: str) -> list[tuple[str, int]]:
    return [(host, int(_setting(environ, f"{name}_port"))) for host in _setting(environ, f"{name}_host")]


def _setting(environ: Mapping[str, str], name: str) -> Any:
    from hearmeman.settings import Settings, canonical, values

    field = Settings.model_fields[name]
    given = canonical(environ).get(name.upper())
    with contextlib.suppress(ValueError):
        if given is not None:
            return values.read(field, given)
    return field.default


def hold(error: HearmemanError, environ: Mapping[str, str], run_dir: Path, python: str) -> int:
    """Show the reason on the pod's ports and to who logs in, until this is stopped; then give the error's exit code."""
    held = plan(environ)
    print(f"hearmeman: {error}", file=sys.stderr, flush=True)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    children: dict[str, subprocess.Popen[bytes] | None] = {}
    commands = _prepare(held, str(error), run_dir, python)
    inherited = ("PATH", "HOME", "LANG", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    given = {name: environ[name] for name in inherited if name in environ}
    began, next_words, started = time.monotonic(), 0.0, dict.fromkeys(commands, float("-inf"))
    while not stop.is_set():
        now = time.monotonic()
        for name, (argv, user) in commands.items():
            child = children.get(name)
            if (child is None or child.poll() is not None) and now - started[name] > AGAIN_SECONDS:
                own = held.ends if name == "idle" else {}
                children[name], started[name] = _start(wrapped(argv, user), {**given, **own}), now
        if now - began >= next_words:
            where = " ".join(f"{host}:{port}" for host, port in held.listens)
            means = "the pod is waiting and costs money: correct the variables and restart it, or stop it"
            log(
                "boot.held",
                minutes=round((now - began) / 60),
                shown_on=where,
                ssh=bool(held.authorized_keys),
                ends_itself=bool(held.ends),
                means=means,
            )
            next_words += REMIND_SECONDS
        stop.wait(1)
    for child in children.values():
        if child is not None:
            child.terminate()
    for child in children.values():
        if child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
    return error.exit_code


def _start(argv: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(argv, env=dict(environ), stdin=subprocess.DEVNULL)
    except OSError as error:
        log("boot.held_without", command=argv[0], why=error.strerror)
        return None


def _prepare(held: Held, reason: str, run_dir: Path, python: str) -> dict[str, tuple[tuple[str, ...], User]]:
    """Write what the page, sshd and shells need: name -> its command and whom it runs as."""
    from hearmeman.redact import redact

    proc = Path("/proc/self")
    texts = [(proc / name).read_text(encoding="utf-8") for name in ("status", "uid_map")]
    separate = not why_not_separate(texts[0], texts[1], Path(SETPRIV).exists())
    run_dir.mkdir(parents=True, exist_ok=True)
    # A container that is started again keeps what its last start left, and status would speak of that.
    for name in ("boot.json", "gate/door.json", "supervisord.conf"):
        (run_dir / name).unlink(missing_ok=True)
    write_json(run_dir / "held.json", {"reason": reason, "listens": held.listens, "since": time.time()}, durable=False)
    (run_dir / "held.txt").write_text(f"This pod could not start.\n\n{redact(reason)}\n\n", encoding="utf-8")
    (run_dir / "shell.env").write_text(_SHELL.format(reason=run_dir / "held.txt"), encoding="utf-8")
    us = (python, "-m", "hearmeman")
    commands: dict[str, tuple[tuple[str, ...], User]] = {}
    commands["page"] = ((*us, "door", "--held", "--run-dir", str(run_dir)), DOOR if separate else ROOT)
    if held.ends:
        folder = run_dir / "idle"
        folder.mkdir(exist_ok=True, mode=0o755)
        (folder / "idle.json").unlink(missing_ok=True)
        if separate:
            os.chown(folder, IDLE.uid, IDLE.gid)
        commands["idle"] = ((*us, "idle", "--run-dir", str(run_dir)), IDLE if separate else ROOT)
    if held.authorized_keys and os.geteuid() == 0:
        (run_dir / "ssh").mkdir(exist_ok=True)
        keys = run_dir / "ssh" / "authorized_keys"
        keys.write_text("\n".join(held.authorized_keys) + "\n", encoding="utf-8")
        with contextlib.suppress(OSError):
            Path("/run/sshd").mkdir(exist_ok=True)
        # On a volume that may be what is wrong nothing is written: this pod's host key is made anew.
        words = ("sshd", "--run-dir", str(run_dir), "--keys-dir", str(run_dir / "ssh" / "host"))
        commands["sshd"] = ((*us, *words, "--port", str(held.ssh_port)), ROOT)
    return commands
