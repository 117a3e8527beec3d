"""`hearmeman nodes update`: pulls the custom nodes on the volume; the image's own are pinned and stay as they are."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hearmeman.errors import HearmemanError, PartlyDoneError
from hearmeman.image import IMAGE_FILE
from hearmeman.log import log

AT_ONCE = 4


class NodesError(HearmemanError):
    """Nodes cannot be updated at all."""


@dataclass(frozen=True)
class Outcome:
    """What became of one node."""

    name: str
    """Its folder's name."""
    problem: str
    """Why it was not updated; empty if it was, or if there was nothing new."""
    before: str = ""
    """Its commit before."""
    after: str = ""
    """Its commit after."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman nodes`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    update = actions.add_parser("update", help="git pull --ff-only in every custom node on the volume")
    update.add_argument("--seconds", type=float, help="seconds for all of it (UPDATE_NODES_SECONDS)")
    install = actions.add_parser("install", help="fetch the nodes and packages that a restored workspace lists")
    install.add_argument("--seconds", type=float, help="seconds for all of it (UPDATE_NODES_SECONDS)")
    install.add_argument("--dry-run", action="store_true", help="show what is missing and fetch nothing")
    install.add_argument("--image-file", type=Path, default=IMAGE_FILE, help="the image's image.json")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Update or fetch nodes and report each; a failure leaves that node as it was.

    Raises:
        PartlyDoneError: some nodes were not updated.
    """
    from hearmeman.settings import load

    settings = load(environ)
    if args.action == "install":
        from hearmeman.workspace import install

        seconds = args.seconds or settings.update_nodes_seconds
        return install.run(settings, environ, args.image_file, seconds, args.dry_run)
    folder = Path(settings.comfyui_dir) / "custom_nodes"
    deadline = time.monotonic() + (args.seconds or settings.update_nodes_seconds)
    nodes = sorted(path for path in folder.iterdir() if (path / ".git").exists()) if folder.is_dir() else []
    if not nodes:
        log("nodes.not_found", folder=folder, means="no custom node on the volume is a git checkout: nothing to update")
        return 0
    # Nobody is there to type a password, and a host's first key cannot be confirmed.
    env = {**environ, "GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes", "LC_ALL": "C"}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(lambda node: update(node, env, deadline), nodes))
    for outcome in outcomes:
        if outcome.problem:
            log("node.failed", name=outcome.name, why=outcome.problem)
        elif outcome.before != outcome.after:
            log("node.updated", name=outcome.name, before=outcome.before[:10], after=outcome.after[:10])
        else:
            log("node.unchanged", name=outcome.name, commit=outcome.after[:10])
    failed = [outcome.name for outcome in outcomes if outcome.problem]
    if failed:
        raise PartlyDoneError(f"{len(failed)} of {len(nodes)} custom nodes were not updated: {', '.join(failed)}")
    return 0


def update(node: Path, environ: Mapping[str, str], deadline: float) -> Outcome:
    """Pull one node; only a fast-forward, so that local changes are never merged or lost."""
    try:
        before = _git(node, environ, deadline, "rev-parse", "HEAD")
        _git(node, environ, deadline, "pull", "--ff-only", "--quiet", "--no-recurse-submodules")
        return Outcome(node.name, "", before, _git(node, environ, deadline, "rev-parse", "HEAD"))
    except NodesError as error:
        return Outcome(node.name, str(error))


def _git(node: Path, environ: Mapping[str, str], deadline: float, *words: str) -> str:
    # The volume may have been written by another user; git would refuse such a folder.
    command = ["git", "-c", f"safe.directory={node}", "-C", str(node), *words]
    try:
        child = subprocess.Popen(
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            process_group=0,
        )
    except OSError as error:
        raise NodesError(f"git cannot be started: {error.strerror}") from error
    try:
        out, problem = child.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        # git's own helpers would go on downloading.
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise NodesError("not done within UPDATE_NODES_SECONDS") from error
    if child.returncode != 0:
        raise NodesError(" ".join(problem.split()) or f"git {words[0]} ended with {child.returncode}")
    return out.strip()
