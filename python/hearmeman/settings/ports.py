"""The variables that name a port; no two services may share one."""

from __future__ import annotations

from pydantic import BaseModel

PORTS = {
    "COMFYUI_PORT": "ComfyUI",
    "STATUS_PORT": "the status page",
    "SSH_PORT": "sshd",
    "JUPYTER_PORT": "JupyterLab",
    "XTTS_PORT": "XTTS",
    "CHATTERBOX_PORT": "Chatterbox",
    "COMFYUI_INNER_PORT": "ComfyUI behind the gate",
    "XTTS_INNER_PORT": "XTTS behind the gate",
    "CHATTERBOX_INNER_PORT": "Chatterbox behind the gate",
}
"""Every port variable and what listens there; no two may be equal."""


def equal_ports(settings: BaseModel) -> list[str]:
    """Find ports that two services would share."""
    seen: dict[int, str] = {}
    problems = []
    for name in PORTS:
        port = getattr(settings, name.lower())
        if port in seen:
            problems.append(f"{name}={port} is also {seen[port]}: give one of them another port")
        seen.setdefault(port, name)
    return problems
