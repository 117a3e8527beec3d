"""What the verbs know of this machine: its variables, its files, and the account behind its key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hearmeman_pod.api import BASE, Api
from hearmeman_pod.key import find_key
from hearmeman_pod.ready import Inside

COMFYUI_PORT = 8188
VOICE_PORTS = {8000: "Chatterbox", 8020: "XTTS"}
"""Where the voice APIs are, unless a variable says otherwise."""


@dataclass(frozen=True)
class World:
    """What the verbs know of this machine."""

    environ: Mapping[str, str]
    home: Path
    """Where runpodctl keeps its file."""
    root: Path
    """The checkout, which holds images.lock.json."""
    proxy: str
    """Address of a pod's port, with {id} and {port}."""
    time: Callable[[], float]
    """Unix seconds."""

    def api(self) -> Api:
        """The API with the account's key."""
        return Api(find_key(self.environ, self.home), self.environ.get("RUNPOD_API_URL") or BASE)

    @property
    def inside(self) -> Inside:
        """How pods themselves are asked."""
        return Inside(self.environ.get("ACCESS_TOKEN", ""), self.proxy)
