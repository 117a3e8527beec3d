"""Carries a boot plan out: folders, links, environments, configurations; then becomes supervisord."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from hearmeman.boot.plan import BootError, BootPlan
from hearmeman.boot.shell import shell_file
from hearmeman.boot.supervisord_conf import configuration
from hearmeman.boot.users import DOOR
from hearmeman.door.nginx import gate_conf
from hearmeman.state_file import write_json

_SUPERVISOR_ENV = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
_GROUP_WRITES = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRGRP
_SSHD_DIR = Path("/run/sshd")


def prepare(
    plan: BootPlan,
    run_dir: Path,
    environ: Mapping[str, str],
    python: str,
    state: Path,
    started: float,
    comfyui_python: str = "",
) -> Path:
    """Write all that supervisord and its programs need under `run_dir`; the answer is its configuration.

    Raises:
        BootError: something cannot be written; nothing was started.
    """
    try:
        for folder in plan.directories:
            Path(folder).mkdir(parents=True, exist_ok=True)
        if plan.separate:
            _share_with_bare_root(plan.directories)
        for name in ("env", "gate", "jupyter", "keep", "node_data", "nodes", "share", "ssh"):
            shutil.rmtree(run_dir / name, ignore_errors=True)
            private = name in ("env", "gate", "jupyter")
            (run_dir / name).mkdir(parents=True, mode=0o700 if private else 0o755)
            if private and plan.separate:
                os.chown(run_dir / name, DOOR.uid, 0)
        _links(plan, run_dir, state)
        for process in plan.processes:
            env = {**process.env, **{alias: environ[name] for name, alias in process.secrets.items()}}
            owner = process.user.uid if plan.separate and process.secrets else -1
            _write_private(run_dir / "env" / f"{process.name}.json", json.dumps(env), owner)
        _kernel(run_dir, comfyui_python, {**(plan.shell or {})})
        (run_dir / "shell.env").write_text(shell_file(plan.shell or {}, plan.unset), encoding="utf-8")
        if plan.authorized_keys:
            (run_dir / "ssh" / "authorized_keys").write_text("\n".join(plan.authorized_keys) + "\n", encoding="utf-8")
            with contextlib.suppress(OSError):  # Not under /run for a person who tries it elsewhere.
                _SSHD_DIR.mkdir(exist_ok=True)
        (run_dir / "gate" / "nginx.conf").write_text(
            gate_conf(plan.doors, run_dir, not plan.separate and os.geteuid() == 0), encoding="utf-8"
        )
        config = run_dir / "supervisord.conf"
        text = configuration(plan, run_dir, state / "logs", python, started, os.urandom(16).hex(), os.geteuid() == 0)
        _write_private(config, text, DOOR.uid if plan.separate else -1)
    except OSError as error:
        raise BootError(
            f"{error.filename or run_dir} cannot be written: {error.strerror}: nothing was started; "
            "free some space or mount a writable volume"
        ) from error
    return config


def become_supervisord(config: Path, environ: Mapping[str, str], python: str, separate: bool = False) -> None:
    """Replace this process by supervisord, whose environment holds nothing but what Python needs."""
    env = {name: environ[name] for name in _SUPERVISOR_ENV if name in environ}
    owner = [f"--socket-owner={DOOR.uid}"] if separate else []
    os.execve(python, [python, "-m", "hearmeman.boot.supervise", *owner, "-n", "-c", str(config)], env)


def _links(plan: BootPlan, run_dir: Path, state: Path) -> None:
    for target in plan.node_links:
        (run_dir / "nodes" / Path(target).name).symlink_to(target)
    logs = run_dir / "logs"
    logs.unlink(missing_ok=True)
    logs.symlink_to(state / "logs")
    for name, folder in plan.node_folders.items():
        link = run_dir / "node_data" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)
    paths = {"hearmeman": {"custom_nodes": str(run_dir / "nodes")}}
    if plan.models_dir:
        link_models(Path(plan.models_dir), Path(plan.models_path))
    # JSON is YAML.
    (run_dir / "extra_model_paths.yaml").write_text(json.dumps(paths) + "\n", encoding="utf-8")


def link_models(baked: Path, models: Path) -> None:
    """Show the image's models in the models folder, where ComfyUI and the fetch plan look; what is there stays."""
    for folder, _, names in os.walk(baked):
        for name in names:
            source = Path(folder, name)
            target = models / source.relative_to(baked)
            # A link of an older image may lead nowhere now.
            if target.is_symlink() and not target.exists():
                target.unlink()
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(OSError):  # Some network volumes have no links: the model is fetched there.
                    target.symlink_to(source)


def _kernel(run_dir: Path, comfyui_python: str, environ: Mapping[str, str]) -> None:
    if not comfyui_python:
        return
    kernel = {
        "argv": [comfyui_python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "ComfyUI's Python",
        "language": "python",
        "env": {name: value for name, value in environ.items() if name.startswith(("HF_HOME", "XDG_CACHE"))},
    }
    folder = run_dir / "share/jupyter/kernels/comfyui"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")


def _share_with_bare_root(directories: tuple[str, ...]) -> None:
    # ComfyUI is root without the right to overrule permissions: folders of another owner must let root's group write.
    # The tree below may be large, so only these folders and their children are looked at.
    for folder in {*directories, *(child.path for top in directories for child in _folders_in(top))}:
        found = Path(folder).stat()
        if found.st_uid != 0 and not (found.st_gid == 0 and found.st_mode & _GROUP_WRITES == _GROUP_WRITES):
            with contextlib.suppress(OSError):  # Some network volumes allow neither; the boot goes on.
                os.chown(folder, -1, 0)
                Path(folder).chmod(stat.S_IMODE(found.st_mode) | _GROUP_WRITES)


def _folders_in(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]


def write_state(path: Path, content: Mapping[str, object]) -> None:
    """Write a state file.

    Raises:
        BootError: it cannot be written.
    """
    try:
        write_json(path, content)
    except OSError as error:
        raise BootError(f"{path} cannot be written: {error.strerror}: nothing was started; free some space") from error


def _write_private(path: Path, text: str, owner: int = -1) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        if owner >= 0:
            os.fchown(file.fileno(), owner, 0)
