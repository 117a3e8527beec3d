"""The variables of the pod itself: places, ComfyUI, memory, doors, voices, start and stop."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, SecretStr, field_validator

from hearmeman.variables import Words, var

_FOLDER = "^(/.*)?$"
_HOST = r"^[^\s,]+$"


class Places(BaseModel):
    """Where things are kept."""

    volume_dir: str = var("/workspace", "where the volume is mounted; /runpod-volume on serverless", pattern="^/")
    storage_mode: Literal["auto", "ephemeral", "persistent"] = var(
        "auto", "what the volume is: persistent refuses to boot where nothing is mounted, auto looks"
    )
    models_dir: str = var("", "where models are kept; empty means VOLUME_DIR/ComfyUI/models", pattern=_FOLDER)
    comfyui_output_dir: str = var("", "where outputs appear; empty means VOLUME_DIR/ComfyUI/output", pattern=_FOLDER)
    state_dir: str = var("", "this pod's state; empty means VOLUME_DIR/.hearmeman/RUNPOD_POD_ID", pattern=_FOLDER)


class ComfyUI(BaseModel):
    """ComfyUI."""

    comfyui_host: Words = var(("0.0.0.0",), "addresses that ComfyUI's port is open on", min_length=1)
    comfyui_port: int = var(8188, "port of ComfyUI", ge=1, le=65535)
    comfyui_inner_port: int = var(
        18188, "with ACCESS_TOKEN: port on loopback that ComfyUI itself listens on, behind the gate", ge=1, le=65535
    )
    comfyui_args: str = var(
        "", "extra ComfyUI arguments; they win over the tuner's; empty or 'auto' means none", ("CLI_ARGS",)
    )
    update_nodes_on_start: bool = var(False, "pull the custom nodes on the volume before ComfyUI starts")
    update_nodes_seconds: float = var(120, "seconds that the update of nodes may take in all", ge=1)
    comfyui_commit: str = var("", "the image's ComfyUI commit; set by the image", given=True)


class Memory(BaseModel):
    """Memory."""

    gpu_tier: Literal["auto", "consumer", "prosumer", "datacenter"] = var("auto", "GPU tier; auto detects it")
    gpu_memory_mode: Literal["auto", "full", "model_cpu_offload", "sequential_cpu_offload"] = var(
        "auto", "memory mode; auto follows the GPU"
    )


class Doors(BaseModel):
    """Doors: who may come in, and where."""

    access_token: SecretStr | None = var(
        None,
        "a gate that asks for this token stands before ComfyUI, the voice APIs and the status page",
        ("COMFYUI_TOKEN",),
    )
    status_host: Words = var(("0.0.0.0",), "addresses that the status page's port is open on", min_length=1)
    status_port: int = var(19123, "port of the status page, /healthz and /readyz", ge=1, le=65535)
    public_key: str = var("", "SSH public keys, one a line; sshd starts when it is set")
    ssh_public_key: str = var("", "SSH public keys for this pod alone; replaces PUBLIC_KEY", given=True)
    ssh_port: int = var(22, "port of sshd", ge=1, le=65535)
    jupyter_password: SecretStr | None = var(
        None, "JupyterLab's token; JupyterLab starts when it is set", ("JUPYTER_TOKEN",)
    )
    jupyter_host: str = var("0.0.0.0", "address that JupyterLab's port is open on", pattern=_HOST)
    jupyter_port: int = var(8888, "port of JupyterLab", ge=1, le=65535)

    @field_validator("access_token", "jupyter_password")
    @classmethod
    def _guarded(cls, value: SecretStr | None) -> SecretStr | None:
        # These ports are open to the internet: a short word would be guessed.
        if value is not None and not re.fullmatch(r"[\x21-\x7e]{12,}", value.get_secret_value()):
            raise ValueError("must be at least 12 printable characters without blanks, since the port is public")
        return value


class Voices(BaseModel):
    """Voice APIs."""

    enable_xtts: bool = var(False, "fetch XTTS v2 and run its API")
    xtts_host: str = var("127.0.0.1", "address that the XTTS API's port is open on", pattern=_HOST)
    xtts_port: int = var(8020, "port of the XTTS API", ge=1, le=65535)
    xtts_inner_port: int = var(18020, "with ACCESS_TOKEN: the XTTS API's own port on loopback", ge=1, le=65535)
    coqui_tos_agreed: bool = var(False, "you accept XTTS v2's licence (CPML, not for commercial use)")
    enable_chatterbox: bool = var(False, "fetch Chatterbox and run its API")
    chatterbox_host: str = var("127.0.0.1", "address that the Chatterbox API's port is open on", pattern=_HOST)
    chatterbox_port: int = var(8000, "port of the Chatterbox API", ge=1, le=65535)
    chatterbox_inner_port: int = var(
        18000, "with ACCESS_TOKEN: the Chatterbox API's own port on loopback", ge=1, le=65535
    )


class Stop(BaseModel):
    """Stopping."""

    stop_seconds: float = var(30, "seconds the whole stop may take", ge=1)


class Given(BaseModel):
    """Given by RunPod, or by boot."""

    runpod_pod_id: str = var("local", "the pod's name", given=True, pattern="^[A-Za-z0-9_.-]+$")
    comfyui_url: str = var("", "where ComfyUI answers inside the pod; boot sets it", given=True)
    runpod_volume_id: str = var("", "the network volume's name; empty without one", given=True)
    runpod_public_ip: str = var("", "address of the pod's TCP ports", given=True)
    runpod_tcp_port_22: str = var("", "outer port that leads to SSH", given=True, pattern=r"^\d*$")
    runpod_api_key: SecretStr | None = var(None, "a key for RunPod's API; no process is given it", given=True)


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
