"""`hearmeman as-comfyui -- COMMAND`: runs a command as ComfyUI is run: its user, its environment, its Python packages."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from hearmeman import users
from hearmeman.errors import HearmemanError, UsageError
from hearmeman.image import IMAGE_FILE, RUN_DIR
from hearmeman.log import log
from hearmeman.state_file import read_json

_OTHERS = ("JUPYTER", "IPYTHON")
"""First words of variables of JupyterLab's server, one of which is its token."""
_FROM_COMFYUI = ("HOME", "USER", "LOGNAME", "PATH")
_DROPPED = ("PYTHONPATH", "PYTHONHOME")


class NoPodError(HearmemanError):
    """No pod was booted here."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman as-comfyui`."""
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="boot's run folder")
    parser.add_argument("--image-file", type=Path, default=IMAGE_FILE, help="the image's image.json")
    # JupyterLab's server writes a notebook's connection file for itself; what it holds goes over by a descriptor.
    parser.add_argument("--kernel", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kernel-descriptor", type=int, help=argparse.SUPPRESS)
    parser.add_argument("argv", nargs="+", metavar="COMMAND", help="-- and the command")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Become the command; does not come back.

    Raises:
        NoPodError: no pod was booted here.
        UsageError: there is no such command.
    """
    known = read_json(args.run_dir / "comfyui.json")
    if not known:
        raise NoPodError(f"no pod was booted here: {args.run_dir}/comfyui.json cannot be read")
    env = merged(environ, known["env"])
    if known["separate"] and os.geteuid() != users.COMFYUI.uid:
        _become(args, env)
    argv = list(args.argv)
    if args.kernel or args.kernel_descriptor is not None:
        argv += ["-f", str(_connection_file(args, Path(env["HOME"])))]
    env = _with_packages(env, args.image_file)
    program = shutil.which(argv[0], path=env.get("PATH"))
    if program is None:
        raise UsageError(f"{argv[0]}: no such command for ComfyUI's user")
    os.umask(users.COMFYUI.umask)
    os.execve(program, argv, env)
    raise AssertionError("exec came back")


def merged(environ: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    """Give ComfyUI's environment with what a person set beside it."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(_OTHERS) and name not in (*_FROM_COMFYUI, *_DROPPED)
    }
    return {**theirs, **kept}


def _become(args: argparse.Namespace, env: Mapping[str, str]) -> None:
    """Start again as ComfyUI's user."""
    words = ["--run-dir", str(args.run_dir), "--image-file", str(args.image_file)]
    if args.kernel:
        descriptor = os.memfd_create("kernel", 0)
        os.write(descriptor, args.kernel.read_bytes())
        os.set_inheritable(descriptor, True)
        words += ["--kernel-descriptor", str(descriptor)]
    if not _can_stay():
        os.chdir(env["HOME"])
        log("folder.changed", to=env["HOME"], why="ComfyUI's user may not enter the folder that this was started in")
    argv = [sys.executable, "-P", "-m", "hearmeman", "as-comfyui", *words, "--", *args.argv]
    users.become(users.COMFYUI, argv, env)


def _can_stay() -> bool:
    """Tell whether ComfyUI's user may enter the folder that we are in, and all above it."""
    here = Path.cwd()
    return all(path.stat().st_mode & 0o001 or _is_theirs(path.stat()) for path in (here, *here.parents))


def _is_theirs(seen: os.stat_result) -> bool:
    own = seen.st_uid == users.COMFYUI.uid and seen.st_mode & 0o100
    return bool(own or (seen.st_gid == users.COMFYUI.gid and seen.st_mode & 0o010))


def _connection_file(args: argparse.Namespace, home: Path) -> Path:
    if args.kernel_descriptor is None:
        found: Path = args.kernel
        return found
    content = os.pread(args.kernel_descriptor, 1 << 20, 0)
    os.close(args.kernel_descriptor)
    folder = home / ".local/share/jupyter/runtime"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"kernel-{os.getpid()}.json"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    return path


def _with_packages(env: dict[str, str], image_file: Path) -> dict[str, str]:
    from hearmeman.overlay import command, venv

    overlay = command.overlay_of(image_file, env)
    try:
        venv.make(overlay)
    except OSError as error:
        log("overlay.unusable", path=str(overlay.root), why=error.strerror)
        return env
    return {**env, **command.pip_variables(overlay), "PATH": f"{overlay.python.parent}:{env.get('PATH', '')}"}
