"""Which custom nodes and Python packages were added on the volume, read from their files without running any of them."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tomllib
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from hearmeman.folder import Folder, names
from hearmeman.overlay.venv import CV2_NAMES
from hearmeman.workspace.contents import COMMIT, NODE, PACKAGE, PACKAGE_VERSION, Node

_LARGEST = 1024**2
_INFO = re.compile(r"^(?P<name>.+)-(?P<version>[^-]+)\.dist-info$")
_REMOTE = re.compile(r'\[remote "origin"\](?P<inner>[^\[]*)')
_URL = re.compile(r"^\s*url\s*=\s*(\S+)\s*$", re.MULTILINE)
_OUR_OWN = ("__pycache__", "websocket_image_save.py", "example_node.py.example")


def nodes(comfyui: Path) -> dict[str, Node]:
    """Read folder or file in custom_nodes -> the node; hidden and switched-off ones are left out."""
    found: dict[str, Node] = {}
    with contextlib.suppress(OSError), Folder(comfyui) as base:
        top = os.open(
            "custom_nodes", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base.descriptor
        )
        try:
            for name in sorted(names(top)):
                if name in _OUR_OWN or name.endswith(".disabled") or not NODE.fullmatch(name):
                    continue
                mode = os.stat(name, dir_fd=top, follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    found[name] = _node(base, f"custom_nodes/{name}")
                elif stat.S_ISREG(mode) and name.endswith(".py"):
                    found[name] = Node()
        finally:
            os.close(top)
    return found


def _node(base: Folder, where: str) -> Node:
    # git itself would run what a repository's configuration names.
    url, commit = "", ""
    if remote := _REMOTE.search(_text(base, f"{where}/.git/config")):
        url = public_address(match[1]) if (match := _URL.search(remote["inner"])) else ""
        commit = _commit(base, where)
    version = ""
    with contextlib.suppress(tomllib.TOMLDecodeError):
        project = tomllib.loads(_text(base, f"{where}/pyproject.toml")).get("project", {})
        stated = project.get("version") if isinstance(project, dict) else None
        version = stated if isinstance(stated, str) and PACKAGE_VERSION.fullmatch(stated) else ""
    return Node(url, commit if url else "", version)


def public_address(url: str) -> str:
    """Give the https address of a repository without a login in it; empty for anything else."""
    ssh = re.fullmatch(r"(?:ssh://)?git@([A-Za-z0-9.-]+)[:/]([\w./~-]+)", url)
    if ssh:
        return f"https://{ssh[1]}/{ssh[2]}"
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme == "https" and parts.hostname:
            host = parts.hostname + (f":{parts.port}" if parts.port else "")
            return urlunsplit(("https", host, parts.path, "", ""))
    return ""


def _commit(base: Folder, where: str) -> str:
    head = _text(base, f"{where}/.git/HEAD").strip()
    if head.startswith("ref: "):
        name = head.removeprefix("ref: ")
        if ".." in name.split("/") or not name.startswith("refs/"):
            return ""
        head = _text(base, f"{where}/.git/{name}").strip()
        if not head:
            packed = _text(base, f"{where}/.git/packed-refs").splitlines()
            head = next((line.partition(" ")[0] for line in packed if line.endswith(f" {name}")), "")
    return head if COMMIT.fullmatch(head) else ""


def _text(base: Folder, path: str) -> str:
    try:
        descriptor = base.open(path)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_LARGEST).decode("utf-8", "replace")


def packages(overlays: Path) -> dict[str, str]:
    """Read package -> version out of all overlays on the volume, so that a new image's empty one forgets none."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError), Folder(overlays) as base:
        folders = [name for name in names(base.descriptor) if "-cp" in name]
        for name in sorted(folders, key=lambda name: os.stat(name, dir_fd=base.descriptor).st_mtime):
            found |= _installed(base, name)
    return found


def _installed(base: Folder, overlay: str) -> dict[str, str]:
    found = {}
    with contextlib.suppress(OSError), base.inside([overlay, "lib"]) as lib:
        for python in names(lib):
            with contextlib.suppress(OSError), base.inside([overlay, "lib", python, "site-packages"]) as site:
                for entry in names(site):
                    match = _INFO.match(entry)
                    name = re.sub(r"[-_.]+", "-", match["name"]).lower() if match else ""
                    # Stand-ins of the image's own cv2; pip put none of them there.
                    if (
                        match
                        and name not in CV2_NAMES
                        and PACKAGE.fullmatch(name)
                        and PACKAGE_VERSION.fullmatch(match["version"])
                    ):
                        found[name] = match["version"]
    return found
