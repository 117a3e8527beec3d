"""Carries a boot plan out: folders, links, environments, supervisord's configuration; then becomes supervisord."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hearmeman.boot.plan import BootError, BootPlan, Process

_SUPERVISOR_ENV = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")


def prepare(
    plan: BootPlan, run_dir: Path, environ: Mapping[str, str], python: str, state: Path, started: float
) -> Path:
    """Write all that supervisord and its programs need under `run_dir`; the answer is its configuration.

    Raises:
        BootError: something cannot be written; nothing was started.
    """
    try:
        for folder in plan.directories:
            Path(folder).mkdir(parents=True, exist_ok=True)
        for name in ("env", "keep", "nodes"):
            shutil.rmtree(run_dir / name, ignore_errors=True)
            (run_dir / name).mkdir(parents=True, mode=0o700 if name == "env" else 0o755)
        for target in plan.node_links:
            (run_dir / "nodes" / Path(target).name).symlink_to(target)
        # JSON is YAML.
        paths = {"hearmeman": {"custom_nodes": str(run_dir / "nodes")}}
        (run_dir / "extra_model_paths.yaml").write_text(json.dumps(paths) + "\n", encoding="utf-8")
        for process in plan.processes:
            env = {**process.env, **{name: environ[name] for name in process.secrets}}
            _write_private(run_dir / "env" / f"{process.name}.json", json.dumps(env))
        config = run_dir / "supervisord.conf"
        password = os.urandom(16).hex()
        _write_private(
            config, configuration(plan, run_dir, state / "logs", python, started, password, os.geteuid() == 0)
        )
    except OSError as error:
        raise BootError(
            f"{error.filename or run_dir} cannot be written: {error.strerror}: nothing was started; "
            "free some space or mount a writable volume"
        ) from error
    return config


def become_supervisord(config: Path, environ: Mapping[str, str], python: str) -> None:
    """Replace this process by supervisord, whose environment holds nothing but what Python needs."""
    env = {name: environ[name] for name in _SUPERVISOR_ENV if name in environ}
    os.execve(python, [python, "-m", "hearmeman.boot.supervise", "-n", "-c", str(config)], env)


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
            f"[program:{process.name}]\ncommand={command}\ndirectory={_plain(process.directory)}\n"
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
    argv = [python, "-m", "hearmeman", "keep", process.name]
    argv += ["--env-file", f"{run_dir}/env/{process.name}.json", "--log", f"{logs}/{process.name}.log"]
    argv += ["--report", f"{run_dir}/keep/{process.name}.json", "--stop-seconds", f"{process.stop_seconds:g}"]
    argv += ["--boot-started", f"{started:.3f}"]
    if process.once:
        argv.append("--once")
    if process.after:
        argv += ["--wait-file", f"{run_dir}/keep/{process.after}.json"]
    return (*argv, "--", *process.argv)


def write_state(path: Path, content: Mapping[str, object]) -> None:
    """Write a state file beside its place, fsync and rename.

    Raises:
        BootError: it cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8"
        ) as file:
            json.dump(content, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    except OSError as error:
        raise BootError(f"{path} cannot be written: {error.strerror}: nothing was started; free some space") from error


def _plain(text: object) -> str:
    # supervisord expands %(x)s and takes " ;" and " #" for a comment; both only inside shlex's single quotes here.
    return str(text).replace("%", "%%").replace(" ;", " '';").replace(" #", " ''#")


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
