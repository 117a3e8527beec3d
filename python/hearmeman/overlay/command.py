"""`hearmeman overlay`: starts ComfyUI over it, and shows, repairs or sets aside what was added to ComfyUI's Python."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hearmeman.errors import HearmemanError, PartlyDoneError
from hearmeman.image import IMAGE_FILE, read_image
from hearmeman.log import log
from hearmeman.overlay import sage, venv
from hearmeman.state_file import read_json, write_json

TRY_SECONDS = 600.0
"""What ComfyUI may take to start once with changed packages."""


_STRAY = frozenset({"PYTHONHOME", "PYTHONPATH"})


class OverlayError(HearmemanError):
    """The overlay cannot be used or changed."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman overlay`."""
    parser.add_argument("--image-file", type=Path, default=IMAGE_FILE, help="the image's image.json")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    start = actions.add_parser("exec", help="start ComfyUI, with the overlay if that works")
    start.add_argument("argv", nargs="+", help="-- and ComfyUI's command")
    shown = actions.add_parser("list", help="list its packages, and those of other images' overlays")
    shown.add_argument("--json", action="store_true", help="print JSON")
    actions.add_parser("install", help="install the packages of other images' overlays here")
    actions.add_parser("reset", help="set it aside; ComfyUI starts with the image's packages alone")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Carry one action out; `exec` does not come back."""
    overlay = overlay_of(args.image_file, environ)
    if args.action == "exec":
        start(overlay, args.argv, environ)
    if args.action == "list":
        return _list(overlay, args.json)
    if args.action == "install":
        return _install(overlay, environ)
    return _reset(overlay)


def overlay_of(image_file: Path, environ: Mapping[str, str]) -> venv.Overlay:
    """Find the overlay of this image on this volume."""
    image = read_image(image_file)
    folder = Path(environ.get("VOLUME_DIR") or "/workspace") / ".hearmeman/comfyui/overlays"
    key = str(image.raw.get("environment_key") or "unknown")
    return venv.Overlay(folder / venv.folder_name(key), Path(image.comfyui_python))


def pip_variables(overlay: venv.Overlay) -> dict[str, str]:
    """Give what keeps pip from changing what the image's packages rest on."""
    return {"PIP_CONSTRAINT": str(overlay.constraints), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def start(overlay: venv.Overlay, argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Replace this process by ComfyUI: over the overlay, or without it where it cannot be made or ComfyUI fails with it."""
    env = {name: value for name, value in environ.items() if name not in _STRAY}
    for name in sorted(_STRAY & set(environ)):
        log("variable.dropped", name=name, why="it would come before ComfyUI's own packages")
    argv = list(argv)
    try:
        venv.make(overlay)
    except OSError as error:
        why = f"{error.strerror}: packages that are installed now go with the pod"
        log("overlay.unusable", path=str(overlay.root), why=why)
    else:
        env |= pip_variables(overlay)
        behind = venv.left_behind(overlay)
        if behind:
            names = ", ".join(f"{name}=={version}" for name, version in behind.items())
            log("overlay.left_behind", packages=names, fix="run `hearmeman overlay install` to install them again")
        if works(overlay, argv, env):
            argv = [str(overlay.python), *argv[1:]]
            env["PATH"] = f"{overlay.python.parent}:{env.get('PATH', '')}".rstrip(":")
    argv += sage.arguments(argv, environ)
    os.execve(argv[0], argv, env)


def works(overlay: venv.Overlay, argv: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether ComfyUI starts with the overlay: tried once for each change of what is in it."""
    packages = venv.installed([overlay.site])
    if not packages:
        return True
    found = read_json(overlay.checked)
    mark = venv.fingerprint(packages)
    if found.get("fingerprint") != mark:
        log("overlay.trying", packages=len(packages))
        begun = time.monotonic()
        problem = _try(overlay, argv, env)
        log("overlay.tried", works=not problem, seconds=time.monotonic() - begun)
        found = {"fingerprint": mark, "problem": problem}
        write_json(overlay.checked, found, durable=False)
    if found["problem"]:
        log(
            "overlay.left_out",
            why=str(found["problem"]).splitlines()[-1],
            fix="ComfyUI starts without the packages on the volume; `hearmeman overlay reset` sets them aside",
        )
        return False
    return True


def _try(overlay: venv.Overlay, argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Start ComfyUI until its nodes are loaded; the end of its output if that fails."""
    command = [str(overlay.python), *argv[1:], "--quick-test-for-ci"]
    try:
        done = subprocess.run(
            command, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TRY_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"ComfyUI did not start within {TRY_SECONDS:.0f} s"
    if done.returncode == 0:
        return ""
    return done.stdout.decode(errors="replace").strip()[-2000:] or f"ComfyUI ended with {done.returncode}"


def _list(overlay: venv.Overlay, as_json: bool) -> int:
    packages, behind = venv.installed([overlay.site]), venv.left_behind(overlay) if overlay.root.is_dir() else {}
    problem = str(read_json(overlay.checked).get("problem") or "")
    if as_json:
        document = {"path": str(overlay.root), "packages": packages, "left_behind": behind, "problem": problem}
        print(json.dumps(document, indent=2))
        return 0
    print(f"{overlay.root}: {len(packages)} packages")
    for name, version in packages.items():
        print(f"  {name}=={version}")
    for name, version in behind.items():
        print(f"  {name}=={version} is only in another image's overlay: `hearmeman overlay install`")
    if problem:
        print(f"ComfyUI does not start with them: {problem.splitlines()[-1]}")
    return 0


def _install(overlay: venv.Overlay, environ: Mapping[str, str]) -> int:
    """Install again what another image's overlay held: all at once, so that they fit each other, else one by one.

    Raises:
        OverlayError: pip could install none of them.
        PartlyDoneError: it could not install some of them.
    """
    venv.make(overlay)
    behind = venv.left_behind(overlay)
    if not behind:
        print("nothing is left behind in another image's overlay")
        return 0
    env = {**environ, **pip_variables(overlay)}

    def installs(*names: str) -> bool:
        # Names without versions: those of another image need not go with this one's packages.
        command = [str(overlay.python), "-m", "pip", "install", *names]
        return subprocess.run(command, env=env, check=False).returncode == 0

    if not installs(*behind):
        failed = [name for name in behind if not installs(name)]
        if failed:
            kind = OverlayError if len(failed) == len(behind) else PartlyDoneError
            raise kind(f"pip could not install {', '.join(failed)}; what it printed above says why")
    return 0


def _reset(overlay: venv.Overlay) -> int:
    if overlay.root.is_dir():
        aside = overlay.root.with_name(f"set-aside-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        overlay.root.rename(aside)
        print(f"set aside as {aside}; restart ComfyUI: hearmeman restart comfyui")
    else:
        print("there is none")
    return 0
