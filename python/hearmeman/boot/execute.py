"""Carries a boot plan out: folders, links, environments, configurations; then becomes supervisord."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from hearmeman.boot import owners
from hearmeman.boot.plan import BootError, BootPlan
from hearmeman.boot.shell import shell_file
from hearmeman.boot.supervisord_conf import configuration
from hearmeman.door.nginx import gate_conf
from hearmeman.log import log
from hearmeman.state_file import write_json
from hearmeman.users import DOOR, IDLE, JUPYTER, ROOT

_SUPERVISOR_ENV = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
_SSHD_DIR = Path("/run/sshd")


def prepare(plan: BootPlan, run_dir: Path, environ: Mapping[str, str], python: str, started: float) -> Path:
    """Write all that supervisord and its programs need under `run_dir`; the answer is its configuration.

    Raises:
        BootError: something cannot be written; nothing was started.
    """
    try:
        _volume(plan)
        (run_dir / "held.json").unlink(missing_ok=True)
        for name in ("env", "gate", "jupyter", "keep", "node_data", "nodes", "share", "ssh"):
            shutil.rmtree(run_dir / name, ignore_errors=True)
            owner = {"gate": DOOR, "jupyter": JUPYTER}.get(name, ROOT)
            (run_dir / name).mkdir(parents=True, mode=0o700 if name in ("env", "gate", "jupyter") else 0o755)
            if plan.separate and owner is not ROOT:
                os.chown(run_dir / name, owner.uid, owner.gid)
        _idle(plan, run_dir / "idle")
        _links(plan, run_dir)
        if plan.state:
            # It speaks of the GPU that was there then.
            (Path(plan.state) / "machine.json").unlink(missing_ok=True)
        for process in plan.processes:
            env = {**process.env, **{alias: environ[name] for name, alias in process.secrets.items()}}
            _write_private(run_dir / "env" / f"{process.name}.json", json.dumps(env))
        _kernel(run_dir, python)
        write_json(run_dir / "comfyui.json", {"separate": plan.separate, "env": dict(plan.theirs)}, durable=False)
        (run_dir / "shell.env").write_text(shell_file(plan.shell or {}, plan.unset), encoding="utf-8")
        if plan.authorized_keys:
            (run_dir / "ssh" / "authorized_keys").write_text("\n".join(plan.authorized_keys) + "\n", encoding="utf-8")
            with contextlib.suppress(OSError):  # Not under /run for a person who tries it elsewhere.
                _SSHD_DIR.mkdir(exist_ok=True)
        (run_dir / "gate" / "nginx.conf").write_text(
            gate_conf(plan.doors, run_dir, not plan.separate and os.geteuid() == 0), encoding="utf-8"
        )
        config = run_dir / "supervisord.conf"
        text = configuration(plan, run_dir, Path(plan.logs), python, started, os.urandom(16).hex(), os.geteuid() == 0)
        _write_private(config, text, DOOR.gid if plan.separate else -1)
    except owners.PlantedError as error:
        raise BootError(f"{error.filename}: {error.strerror}: nothing was started; remove that link") from error
    except OSError as error:
        raise _unwritable(error.filename or run_dir, error) from error
    return config


def _idle(plan: BootPlan, folder: Path) -> None:
    """Keep the count of a container that is merely started again; it goes with the container when the pod is stopped."""
    if not any(process.name == "idle" for process in plan.processes):
        shutil.rmtree(folder, ignore_errors=True)
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    (folder / "idle.json").unlink(missing_ok=True)
    if plan.separate:
        os.chown(folder, IDLE.uid, IDLE.gid)


def _volume(plan: BootPlan) -> None:
    """Make the volume's folders; nothing here takes longer on a volume with many files."""
    _move(plan)
    for folder in plan.folders:
        if not plan.separate:
            Path(folder.path).mkdir(parents=True, exist_ok=True)
        elif refused := owners.settle(folder):
            log(
                "owners.refused",
                path=folder.path,
                why=refused,
                means="write access there is whatever the filesystem allows",
            )
    if plan.separate:
        owners.settle_state(plan.state)
        for path, depth in plan.soon:
            owners.repair(path, depth=depth)
    if plan.manager_config:
        with owners.acting_as_comfyui() if plan.separate else contextlib.nullcontext():
            _configure_manager(*plan.manager_config)
    if plan.models_dir:
        with owners.acting_as_comfyui() if plan.separate else contextlib.nullcontext():
            link_models(Path(plan.models_dir), Path(plan.models_path))


def _configure_manager(file: str, content: str) -> None:
    """Write ComfyUI-Manager's configuration unless there is one, a person's or its own."""
    means = "ComfyUI-Manager installs nodes from its list for anyone who can open ComfyUI; edit the file to change that"
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        with Path(file).open("x", encoding="utf-8") as written:
            written.write(content)
    except FileExistsError:
        return
    except OSError as error:
        log(
            "manager.not_configured", file=file, why=error.strerror, means="ComfyUI-Manager may refuse to install nodes"
        )
    else:
        log("manager.configured", file=file, means=means)


def _move(plan: BootPlan) -> None:
    for old, new in plan.moves:
        if not os.path.lexists(old) or Path(old).is_symlink() or os.path.lexists(new):
            continue
        into = owners.of_comfyui(str(Path(new).parent))
        if plan.separate:
            owners.settle(owners.of_root(str(Path(old).parent)))
            owners.settle(into)
        else:
            Path(into.path).mkdir(parents=True, exist_ok=True)
        with owners.open_folder(into.path) as folder:
            os.rename(old, Path(new).name, dst_dir_fd=folder)
        if Path(new).is_dir():
            with contextlib.suppress(OSError):  # For a pod of an older image on the same volume.
                Path(old).symlink_to(new)
        log("volume.moved", old=old, new=new)


def become_supervisord(config: Path, environ: Mapping[str, str], python: str, separate: bool = False) -> None:
    """Replace this process by supervisord, whose environment holds nothing but what Python needs."""
    env = {name: environ[name] for name in _SUPERVISOR_ENV if name in environ}
    group = [f"--socket-group={DOOR.gid}"] if separate else []
    os.execve(python, [python, "-P", "-m", "hearmeman.boot.supervise", *group, "-n", "-c", str(config)], env)


def _links(plan: BootPlan, run_dir: Path) -> None:
    for target in plan.node_links:
        (run_dir / "nodes" / Path(target).name).symlink_to(target)
    logs = run_dir / "logs"
    logs.unlink(missing_ok=True)
    logs.symlink_to(plan.logs)
    for name, folder in plan.node_folders.items():
        link = run_dir / "node_data" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)
    paths = {"hearmeman": {"custom_nodes": str(run_dir / "nodes"), "configs": plan.model_configs}}
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


def _kernel(run_dir: Path, python: str) -> None:
    command = [
        python,
        "-P",
        "-m",
        "hearmeman",
        "as-comfyui",
        "--run-dir",
        str(run_dir),
        "--kernel",
        "{connection_file}",
    ]
    kernel = {
        "argv": [*command, "--", "python", "-m", "ipykernel_launcher"],
        "display_name": "ComfyUI's Python",
        "language": "python",
    }
    folder = run_dir / "share/jupyter/kernels/comfyui"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")


def write_state(path: Path, content: Mapping[str, object]) -> None:
    """Write a state file.

    Raises:
        BootError: it cannot be written.
    """
    try:
        write_json(path, content)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: str | Path, error: OSError) -> BootError:
    return BootError(
        f"{path} cannot be written: {error.strerror}: nothing was started; free some space or mount a writable volume"
    )


def _write_private(path: Path, text: str, group: int = -1) -> None:
    """Write what only root may read, and `group` where one is given."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        if group >= 0:
            os.fchown(file.fileno(), 0, group)
            os.fchmod(file.fileno(), 0o640)
