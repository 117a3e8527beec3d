"""`hearmeman nodes install`: fetches the custom nodes and Python packages that a save names and this volume lacks."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hearmeman.errors import PartlyDoneError
from hearmeman.image import NODES_DIR, read_image
from hearmeman.log import log
from hearmeman.overlay import venv
from hearmeman.overlay.command import overlay_of, pip_variables
from hearmeman.settings import Settings
from hearmeman.workspace.contents import Node, Save, SaveError, parse
from hearmeman.workspace.space import ADDED

BAKED = NODES_DIR
"""The image's own custom nodes."""


@dataclass(frozen=True)
class Missing:
    """What a save names and this volume lacks."""

    nodes: Mapping[str, Node]
    """Nodes that git can fetch."""
    by_hand: Mapping[str, Node]
    """Nodes that it cannot."""
    packages: tuple[str, ...]
    """Python packages."""


def missing(save: Save, custom_nodes: Path, baked: Path, present: Mapping[str, str]) -> Missing:
    """Compare a save with the volume and the image; `present` are the packages that ComfyUI has."""
    there = {path.name.casefold() for folder in (custom_nodes, baked) if folder.is_dir() for path in folder.iterdir()}
    wanted = {name: node for name, node in save.nodes.items() if name.casefold() not in there}
    return Missing(
        {name: node for name, node in wanted.items() if node.url and node.commit},
        {name: node for name, node in wanted.items() if not (node.url and node.commit)},
        tuple(sorted(save.packages.keys() - present.keys())),
    )


def run(settings: Settings, environ: Mapping[str, str], image_file: Path, seconds: float, dry_run: bool) -> int:
    """Fetch what is missing, or print it.

    Raises:
        SaveError: nothing was restored here yet.
        PartlyDoneError: some of it could not be fetched; the rest was.
    """
    listed = Path(settings.state_path) / ADDED
    try:
        save = parse(listed.read_bytes(), str(listed))
    except FileNotFoundError as error:
        raise SaveError("nothing was restored on this pod yet: run `hearmeman workspace restore` first") from error
    except OSError as error:
        raise SaveError(f"{listed} cannot be read: {error.strerror}") from error
    # Without the key nothing says which packages added ones would be built for.
    has_key = image_file.exists() and bool(read_image(image_file).environment_key)
    overlay = overlay_of(image_file, environ) if has_key else None
    present = venv.installed([overlay.site, *venv.image_sites(overlay.image_python)]) if overlay else save.packages
    custom_nodes = Path(settings.comfyui_dir) / "custom_nodes"
    lacks = missing(save, custom_nodes, BAKED, present)
    if dry_run:
        print("\n".join(lines(lacks)) or "nothing is missing")
        return 0
    deadline = time.monotonic() + seconds
    failed = [name for name, node in lacks.nodes.items() if not _clone(custom_nodes, name, node, environ, deadline)]
    if overlay is not None and lacks.packages and not _pip(overlay, lacks.packages, environ, deadline):
        failed += lacks.packages
    for name, node in lacks.by_hand.items():
        log(
            "node.not_restored", name=name, version=node.version, why="no public git address is known: install it again"
        )
    counts = {"nodes": len(lacks.nodes), "packages": len(lacks.packages), "by_hand": len(lacks.by_hand)}
    log("nodes.missing" if any(counts.values()) else "nodes.complete", failed=len(failed) or None, **counts)
    if failed:
        raise PartlyDoneError(
            f"not fetched: {', '.join(failed)}; the rest was. `hearmeman nodes install` tries again; "
            "UPDATE_NODES_SECONDS limits its time"
        )
    return 0


def lines(lacks: Missing) -> list[str]:
    """Render what is missing for a person."""
    shown = [f"node     {name} from {node.url} at {node.commit[:10]}" for name, node in lacks.nodes.items()]
    shown += [f"node     {name} {node.version}: to be installed by hand" for name, node in lacks.by_hand.items()]
    return shown + [f"package  {name}" for name in lacks.packages]


def _clone(custom_nodes: Path, name: str, node: Node, environ: Mapping[str, str], deadline: float) -> bool:
    # ComfyUI loads no folder of this ending, should it start meanwhile.
    beside = custom_nodes / f".hearmeman-{secrets.token_hex(6)}.disabled"
    env = {**environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    only_https = ["-c", "protocol.allow=never", "-c", "protocol.https.allow=always"]
    steps = (
        ["git", *only_https, "clone", "--quiet", "--no-checkout", "--", node.url, str(beside)],
        ["git", "-C", str(beside), "checkout", "--quiet", "--detach", node.commit],
    )
    try:
        for step in steps:
            problem = _problem(step, env, deadline)
            if problem:
                log("node.not_restored", name=name, url=node.url, why=problem)
                return False
        beside.rename(custom_nodes / name)
    except OSError as error:
        log("node.not_restored", name=name, url=node.url, why=error.strerror)
        return False
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    log("node.restored", name=name, url=node.url, commit=node.commit[:10])
    return True


def _pip(overlay: venv.Overlay, packages: tuple[str, ...], environ: Mapping[str, str], deadline: float) -> bool:
    venv.make(overlay)
    # Names without versions: those of another image need not go with this one's packages.
    command = [str(overlay.python), "-m", "pip", "install", "--quiet", *packages]
    problem = _problem(command, {**environ, **pip_variables(overlay)}, deadline)
    if problem:
        log("packages.not_restored", packages=",".join(packages), why=problem)
    else:
        log("packages.restored", packages=",".join(packages))
    return not problem


def _problem(command: list[str], environ: Mapping[str, str], deadline: float) -> str:
    """Run a command and say why it failed; empty if it did not."""
    left = deadline - time.monotonic()
    if left <= 0:
        return "there was no time left"
    try:
        done = subprocess.run(
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=left,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "it took too long"
    except OSError as error:
        return f"{Path(command[0]).name} cannot be started: {error.strerror}"
    return "" if done.returncode == 0 else " ".join(done.stderr.split())[-300:] or f"exit code {done.returncode}"
