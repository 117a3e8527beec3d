"""The pod's settings as one object, and what follows from several of them."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, SecretStr, ValidationInfo, field_validator

from hearmeman.image import WORKER_DIR
from hearmeman.settings import groups, values
from hearmeman.settings.declare import UNSUBSTITUTED, UNSUBSTITUTED_TEXT, extra_of


class Settings(
    groups.Places,
    groups.ComfyUI,
    groups.Memory,
    groups.Doors,
    groups.Voices,
    groups.Models,
    groups.Sync,
    groups.Worker,
    groups.Stop,
    groups.Given,
):
    """The pod's settings; one field is one environment variable of the same name in capitals."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, defer_build=False)

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str) or info.field_name is None:
            return value
        if UNSUBSTITUTED.search(value):
            raise ValueError(UNSUBSTITUTED_TEXT)
        return values.read(cls.model_fields[info.field_name], value)

    @property
    def comfyui_dir(self) -> str:
        """ComfyUI's base directory on the volume."""
        return f"{self.volume_dir}/ComfyUI"

    @property
    def models_path(self) -> str:
        """Where models are kept."""
        return self.models_dir or f"{self.comfyui_dir}/models"

    @property
    def output_path(self) -> str:
        """Where outputs appear; each serverless worker has a folder of its own, since workers share a volume."""
        own = f"/{self.runpod_pod_id}" if self.enable_worker else ""
        return self.comfyui_output_dir or f"{self.comfyui_dir}/output{own}"

    @property
    def input_path(self) -> str:
        """Where ComfyUI finds inputs; a job's must not lie where another worker writes one of the same name."""
        return f"{WORKER_DIR if self.enable_worker else self.comfyui_dir}/input"

    @property
    def voices_path(self) -> str:
        """Where uploaded voices are kept."""
        return f"{self.volume_dir}/voices"

    @property
    def gated(self) -> bool:
        """Whether a gate stands before the pod's ports."""
        return self.access_token is not None

    @property
    def ends_by_itself(self) -> bool:
        """Whether the pod is to end itself, and can: RunPod gave it a name and a key."""
        wanted = self.idle_stop_minutes > 0 or self.max_minutes > 0
        return wanted and self.runpod_api_key is not None and self.runpod_pod_id != "local"

    @property
    def comfyui_listens(self) -> tuple[tuple[str, int], ...]:
        """Addresses and ports that ComfyUI itself listens on."""
        if self.gated:
            return (("127.0.0.1", self.comfyui_inner_port),)
        return tuple((host, self.comfyui_port) for host in self.comfyui_host)

    @property
    def inner_url(self) -> str:
        """Where processes of this pod reach ComfyUI, without the gate."""
        host, port = self.comfyui_listens[0]
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
        return f"http://{host}:{port}"

    @property
    def authorized_keys(self) -> tuple[str, ...]:
        """SSH public keys that may log in."""
        return tuple(key for key in self._keys() if not values.key_problem(key))

    @property
    def key_problems(self) -> tuple[str, ...]:
        """What is wrong with lines of the public keys, counted from 1."""
        name = "SSH_PUBLIC_KEY" if self.ssh_public_key else "PUBLIC_KEY"
        found = [
            f"line {number} of {name} {problem}, so it is left out: correct it"
            for number, key in enumerate(self._keys(), 1)
            if (problem := values.key_problem(key))
        ]
        return (
            *found,
            *(
                f"line {number} of {name} contains two keys, but sshd reads only the first: put each on a line "
                "of its own"
                for number, key in enumerate(self._keys(), 1)
                if not values.key_problem(key) and values.second_key(key)
            ),
        )

    def _keys(self) -> list[str]:
        lines = (self.ssh_public_key or self.public_key).replace("\\n", "\n").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]

    @property
    def state_path(self) -> str:
        """This pod's state folder."""
        return self.state_dir or f"{self.hidden_path}/{self.runpod_pod_id}"

    @property
    def hidden_path(self) -> str:
        """Our own folder on the volume; root's."""
        return f"{self.volume_dir}/.hearmeman"

    @property
    def fetch_path(self) -> str:
        """What the fetch notes for every pod on the volume; its own."""
        return f"{self.hidden_path}/models"

    @property
    def own_path(self) -> str:
        """What ComfyUI keeps beside its folder: added packages, its home, its database; its own."""
        return f"{self.hidden_path}/comfyui"

    @property
    def cache_path(self) -> str:
        """What ComfyUI and its nodes can make or fetch again; ComfyUI's own."""
        return f"{self.volume_dir}/.cache"


NAMES: dict[str, str] = {name.upper(): name for name in Settings.model_fields}
"""Variable -> its field."""

SECRETS = frozenset(
    name.upper() for name, field in Settings.model_fields.items() if field.annotation == SecretStr | None
)
"""Names of the variables that never appear in logs, argv or another process's environment."""

RUNPOD_SECRETS: dict[str, str] = {
    name.upper(): extra_of(field)["secret"]
    for name, field in Settings.model_fields.items()
    if extra_of(field)["secret"]
}
"""Variable -> what its secret is called in RunPod's console, where a person makes it."""

ALIASES: dict[str, str] = {
    alias: name.upper() for name, field in Settings.model_fields.items() for alias in extra_of(field)["aliases"]
}
"""Old spelling -> the variable."""

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = tuple(
    ((group.__doc__ or "").rstrip("."), tuple(name.upper() for name in group.model_fields)) for group in groups.ALL
)
"""Heading -> its variables, in the order in which they are shown."""
