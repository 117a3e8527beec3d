"""The pod's ports: which are open, what guards them, and in plain words who can connect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hearmeman.settings import Settings

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Door:
    """One port of the pod, as seen from outside."""

    service: str
    """What is behind it."""
    variable: str
    """The variable that names its port."""
    hosts: tuple[str, ...]
    """Addresses that it listens on."""
    port: int
    """Its port."""
    guard: str
    """'gate', 'token', 'keys', or empty: unguarded."""
    inner: int = 0
    """Behind the gate: the service's own port on loopback; 0 for a socket."""
    essential: bool = False
    """Whether the pod is useless without it."""

    @property
    def is_public(self) -> bool:
        """Whether it can be reached from outside the pod."""
        return any(host not in LOOPBACK for host in self.hosts)

    def address(self, pod: str, ssh: tuple[str, str] = ("", "")) -> str:
        """Give where a person outside finds it, of the pod named `pod`; `ssh` is RunPod's address and port for SSH.

        Empty where it cannot be reached, or where that is not known.
        """
        if not self.is_public and pod != "local":
            return ""
        if self.guard == "keys":
            return f"ssh root@{ssh[0]} -p {ssh[1]}" if all(ssh) else ""
        return f"https://{pod}-{self.port}.proxy.runpod.net/" if pod != "local" else f"http://localhost:{self.port}/"

    def words(self) -> str:
        """Say who can connect."""
        where = f"{self.port} {self.service}"
        if not self.is_public:
            return f"{where}: from inside the pod only"
        who = {
            "gate": "anyone with ACCESS_TOKEN",
            "token": "anyone with JUPYTER_PASSWORD",
            "keys": "anyone with a key in PUBLIC_KEY",
            "": "ANYONE who knows the address; set ACCESS_TOKEN to require a token",
        }
        return f"{where}: {who[self.guard]}"


def doors(settings: Settings) -> tuple[Door, ...]:
    """List the ports that these settings open."""
    gate = "gate" if settings.gated else ""
    gated = settings.gated
    comfyui = ("ComfyUI", "COMFYUI_PORT", settings.comfyui_host, settings.comfyui_port)
    found = [
        Door(*comfyui, gate, settings.comfyui_inner_port if gated else 0, essential=True),
        Door("status page", "STATUS_PORT", settings.status_host, settings.status_port, gate),
    ]
    for service, name in (("XTTS", "xtts"), ("Chatterbox", "chatterbox")):
        if getattr(settings, f"enable_{name}"):
            # Behind the gate a voice API is as public as ComfyUI; without one it stays inside unless asked for.
            hosts = settings.comfyui_host if gated else (getattr(settings, f"{name}_host"),)
            inner = getattr(settings, f"{name}_inner_port") if gated else 0
            port = getattr(settings, f"{name}_port")
            found.append(Door(service, f"{name.upper()}_PORT", hosts, port, gate, inner))
    if settings.jupyter_password is not None:
        hosts = (settings.jupyter_host,)
        found.append(Door("JupyterLab", "JUPYTER_PORT", hosts, settings.jupyter_port, "token"))
    if settings.authorized_keys:
        found.append(Door("SSH", "SSH_PORT", ("0.0.0.0",), settings.ssh_port, "keys"))
    return tuple(found)


def words(found: Sequence[Door]) -> list[str]:
    """Say for every port who can connect."""
    return [door.words() for door in found]
