"""Renders supervisord's configuration: every program is our wrapper around one process of the plan."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from hearmeman.boot.plan import BootPlan
from hearmeman.boot.process import Process
from hearmeman.users import wrapped


def configuration(
    plan: BootPlan, run_dir: Path, logs: Path, python: str, started: float, password: str, as_root: bool
) -> str:
    """Render supervisord's configuration."""
    sock = run_dir / "supervisor.sock"
    login = f"username=hearmeman\npassword={password}\n"
    parts = [
        "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\nloglevel=warn\n"
        f"pidfile={_plain(run_dir / 'supervisord.pid')}\n" + ("user=root\n" if as_root else ""),
        f"[unix_http_server]\nfile={_plain(sock)}\nchmod=0700\n{login}",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n",
        f"[supervisorctl]\nserverurl=unix://{_plain(sock)}\n{login}",
    ]
    for process in plan.processes:
        command = _plain(shlex.join(keep_argv(process, run_dir, logs, python, started)))
        parts.append(
            f"[program:{process.name}]\ncommand={command}\ndirectory=/\n"
            "autostart=true\nstartsecs=0\nredirect_stderr=true\nstdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\n"
            f"autorestart={'unexpected' if process.once else 'true'}\nexitcodes=0,2,3\n"
            f"stopsignal=TERM\nstopwaitsecs={math.ceil(process.stop_seconds) + 1}\n"
        )
    # supervisord stops group after group, the one with the highest priority first.
    stages = sorted({process.stop_stage for process in plan.processes})
    for stage in stages:
        members = ",".join(process.name for process in plan.processes if process.stop_stage == stage)
        parts.append(f"[group:stop-{stage}]\nprograms={members}\npriority={1000 - stage}\n")
    return "\n".join(parts)


def keep_argv(process: Process, run_dir: Path, logs: Path, python: str, started: float) -> tuple[str, ...]:
    """Build the command of the wrapper that keeps `process` running."""
    # -P: never import from the folder that it is started in.
    argv = [python, "-P", "-m", "hearmeman", "keep", process.name]
    argv += ["--env-file", f"{run_dir}/env/{process.name}.json", "--log", f"{logs}/{process.name}.log"]
    argv += ["--report", f"{run_dir}/keep/{process.name}.json", "--stop-seconds", f"{process.stop_seconds:g}"]
    argv += ["--boot-started", f"{started:.3f}"]
    argv += ["--directory", process.directory, "--umask", f"{process.user.umask:03o}"]
    if process.oom_score:
        argv += ["--oom-score", str(process.oom_score)]
    if process.notes:
        argv += ["--note", process.notes]
    if process.once:
        argv.append("--once")
    for name in process.after:
        argv += ["--after", f"{run_dir}/keep/{name}.json"]
    for name in process.needs:
        argv += ["--needs", f"{run_dir}/keep/{name}.json"]
    first = () if process.user.whole else process.first
    return (*argv, "--", *first, *wrapped(process.argv, process.user))


def _plain(text: object) -> str:
    # supervisord expands %(x)s and takes " ;" and " #" for a comment; both only inside shlex's single quotes here.
    return str(text).replace("%", "%%").replace(" ;", " '';").replace(" #", " ''#")
