"""Every variable of the pod, declared once: name, type, default, secret or not, one line of help."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, field_validator

from hearmeman import pod_settings
from hearmeman.errors import UsageError
from hearmeman.variables import UNSUBSTITUTED, UNSUBSTITUTED_TEXT, Problem, extra_of, near_misses, renamed, var

PUBLIC_KEY = re.compile(r"(^|\s)((ssh|ecdsa)-[\w-]+|sk-[\w@.-]+)\s+AAAA[A-Za-z0-9+/=]+(\s|$)")


class Models(BaseModel):
    """Models: what is fetched, and from where."""

    model_catalogue: str = var("/opt/hearmeman/catalogue.toml", "the file that lists what can be fetched")
    models: str = var("", "catalogue ids to fetch, separated by commas, beside those that toggles ask for")
    wait_for_models: bool = var(False, "start ComfyUI only when every enabled model is present")
    dry_run: bool = var(False, "print the fetch plan and fetch nothing")
    download_timeout: int = var(1800, "seconds without progress after which a download is cut", ge=1)
    volume_size_gb: float = var(
        0, "the volume's quota in GB where the filesystem does not show it; 0 means ask it", ge=0
    )
    enable_controlnet: bool = var(True, "fetch the SD 1.5 ControlNet weights (a base model is needed beside them)")
    controlnet_models: str = var(
        "canny,depth,openpose",
        "which ControlNets, separated by commas: canny, depth, openpose, lineart, normalbae",
        pattern=r"^ *(canny|depth|openpose|lineart|normalbae)( *, *(canny|depth|openpose|lineart|normalbae))* *$",
    )
    enable_vibevoice: bool = var(False, "fetch VibeVoice (speech in ComfyUI)")
    vibevoice_model: Literal["1.5B", "Large", "Large-Q8"] = var("Large", "which VibeVoice")
    wan_720p: bool = var(False, "fetch WAN 2.1 text-to-video 14B")
    wan_480p: bool = var(False, "fetch WAN 2.1 text-to-video 1.3B")
    enable_i2v: bool = var(False, "fetch WAN 2.1 image-to-video 14B and its CLIP vision encoder")
    enable_wan22_distill: bool = var(False, "fetch the WAN 2.2 image-to-video experts for 4 steps")
    wan22_distill_variant: Literal["lightx2v", "turbodiffusion"] = var(
        "lightx2v", "how they come to 4 steps: LoRAs in ComfyUI's own nodes, or TurboDiffusion's files and nodes"
    )
    enable_wan22_ti2v: bool = var(False, "fetch WAN 2.2 text-and-image-to-video 5B")
    enable_vace: bool = var(False, "fetch WAN 2.1 VACE 14B (video editing)")
    enable_fun_inp: bool = var(False, "fetch WAN 2.2 Fun InP 14B (between a first and a last frame)")
    enable_steadydancer: bool = var(False, "fetch SteadyDancer 14B (a picture dances like a video)")
    enable_scail: bool = var(False, "fetch SCAIL preview 14B (a character moves like a 3D pose)")
    enable_illustrious: bool = var(False, "fetch Realism Illustrious v5.0 (SDXL, from CivitAI)")
    enable_illustrious_embeddings: bool = var(True, "with ENABLE_ILLUSTRIOUS: fetch its two embeddings too")
    enable_zimage: bool = var(False, "fetch Z-Image Turbo")
    enable_qwen_edit: bool = var(False, "fetch Qwen-Image-Edit-2511")
    qwen_edit_model: Literal["Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "fp8", "full"] = var(
        "Q4_K_M", "which Qwen-Image-Edit: a GGUF quantisation, fp8, or full for bf16"
    )
    enable_genfocus: bool = var(False, "fetch Genfocus (nothing in the image loads it; FLUX.1-dev is gated)")
    enable_mvinverse: bool = var(False, "fetch MVInverse's weights (nothing in the image loads them)")
    enable_flashportrait: bool = var(False, "fetch FlashPortrait")
    enable_storymem: bool = var(False, "fetch StoryMem (nothing in the image loads it)")
    enable_infcam: bool = var(False, "fetch InfCam on a datacenter GPU (nothing in the image loads it)")
    download_connections: int = var(32, "connections that all downloads together may use", ge=1, le=256)
    download_connections_per_file: int = var(16, "connections that one file may use", ge=1, le=64)
    download_xet: bool = var(True, "use Hugging Face's Xet storage where it is offered, plain HTTP when it fails")
    model_cache: str = var(
        "",
        "a bucket of your own that serves and keeps models, s3://BUCKET/PREFIX; it uses R2_ENDPOINT and R2's two keys",
        pattern="^(s3://[^/]+(/.*)?)?$",
    )
    civitai_api_key: SecretStr | None = var(None, "CivitAI API key, for files that want a login")
    civitai_endpoint: str = var("https://civitai.com", "address of CivitAI", pattern="^https?://")
    hf_token: SecretStr | None = var(None, "Hugging Face token for gated models")
    hf_endpoint: str = var("https://huggingface.co", "address of the Hugging Face Hub", pattern="^https?://")


class Sync(BaseModel):
    """Outputs: where they are uploaded."""

    enable_r2_sync: bool = var(False, "upload outputs to the bucket as they appear")
    r2_endpoint: str = var("", "address of the S3 endpoint; required with ENABLE_R2_SYNC", pattern="^(https?://.+)?$")
    r2_bucket: str = var("runpod", "bucket that outputs go to", pattern="^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    r2_prefix: str = var("outputs", "first part of every object's key", pattern="^[^/].*[^/]$|^[^/]$", max_length=100)
    r2_access_key_id: SecretStr | None = var(None, "access key; required with ENABLE_R2_SYNC")
    r2_secret_access_key: SecretStr | None = var(None, "secret key; required with ENABLE_R2_SYNC")
    sync_extensions: str = var(
        "png,jpg,jpeg,webp,mp4,webm,gif,wav,mp3,flac", "file name extensions that are uploaded, in any case"
    )
    sync_uploads: int = var(12, "files uploaded at one time", ge=1, le=64)
    sync_watch: bool = var(True, "hear of new files from the kernel; they are found by looking either way")
    sync_drain_seconds: float = var(20, "seconds the sync may use at stop to send what is left", ge=0)


class Settings(
    pod_settings.Places,
    pod_settings.ComfyUI,
    pod_settings.Memory,
    pod_settings.Doors,
    pod_settings.Voices,
    Models,
    Sync,
    pod_settings.Stop,
    pod_settings.Given,
):
    """The pod's settings; one field is one environment variable of the same name in capitals."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _substituted(cls, value: Any) -> Any:
        if isinstance(value, str) and UNSUBSTITUTED.search(value):
            raise ValueError(UNSUBSTITUTED_TEXT)
        return value

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
        """Where outputs appear."""
        return self.comfyui_output_dir or f"{self.comfyui_dir}/output"

    @property
    def gated(self) -> bool:
        """Whether a gate stands before the pod's ports."""
        return self.access_token is not None

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
        return tuple(key for key in self._keys() if PUBLIC_KEY.search(key))

    @property
    def bad_keys(self) -> tuple[int, ...]:
        """Which lines of the public keys are none, counted from 1."""
        return tuple(number for number, key in enumerate(self._keys(), 1) if not PUBLIC_KEY.search(key))

    def _keys(self) -> list[str]:
        lines = (self.ssh_public_key or self.public_key).replace("\\n", "\n").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]

    @property
    def state_path(self) -> str:
        """This pod's state folder."""
        return self.state_dir or f"{self.volume_dir}/.hearmeman/{self.runpod_pod_id}"


SECRETS = frozenset(
    name.upper() for name, field in Settings.model_fields.items() if field.annotation == SecretStr | None
)
"""Names of the variables that never appear in logs, argv or another process's environment."""

ALIASES: dict[str, str] = {
    alias: name.upper() for name, field in Settings.model_fields.items() for alias in extra_of(field)["aliases"]
}
"""Old spelling -> the variable."""

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = tuple(
    ((group.__doc__ or "").rstrip("."), tuple(name.upper() for name in group.__annotations__))
    for group in Settings.__bases__
)
"""Heading -> its variables, in the order in which they are shown."""


class SettingsError(UsageError):
    """One or more variables are wrong; the message names all of them."""


def canonical(environ: Mapping[str, str]) -> dict[str, str]:
    """Give `environ` without empty values and with old spellings under their new names."""
    return renamed(environ, ALIASES)[0]


def load(environ: Mapping[str, str], whole: bool = False) -> Settings:
    """Read the settings from `environ`; empty values count as unset.

    `whole` asks for what belongs together: a single process of the pod is not given the others' secrets.

    Raises:
        SettingsError: names every wrong variable, its value unless secret, and what it takes.
    """
    settings, problems = parse(environ, whole)
    if settings is None or problems:
        raise SettingsError(told(problems))
    return settings


def told(problems: list[Problem]) -> str:
    """Render problems as one message."""
    return "settings are wrong, nothing was started:\n" + "\n".join(f"  {problem.text}" for problem in problems)


def parse(environ: Mapping[str, str], whole: bool = False) -> tuple[Settings | None, list[Problem]]:
    """Read the settings and find all that is wrong; None where they cannot be made. `whole` as in `load`."""
    names = {name.upper(): name for name in Settings.model_fields}
    found, spelt, problems = renamed(environ, ALIASES)
    problems += near_misses(environ, {**names, **ALIASES})
    problems += _missing(found) if whole else []
    settings = None
    try:
        settings = Settings.model_validate({names[name]: value for name, value in found.items() if name in names})
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            name = str(item["loc"][0]).upper() if item["loc"] else ""
            message = item["msg"].removeprefix("Value error, ")
            shown = "" if not name or name in SECRETS else f"={found.get(name, '')!r}"
            problems.append(Problem(name, f"{spelt.get(name, name)}{shown}: {message}" if name else message))
    if settings is not None:
        problems += [Problem(text.partition("=")[0], text) for text in pod_settings.equal_ports(settings)]
    return settings, problems


_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})


def _missing(found: Mapping[str, str]) -> list[Problem]:
    if found.get("ENABLE_R2_SYNC", "").lower() not in _TRUE:
        return []
    names = ("R2_ENDPOINT", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")
    return [Problem(name, f"{name} is required when ENABLE_R2_SYNC=true") for name in names if name not in found]


_PARTS = {
    "R2_ENDPOINT": "sync",
    "R2_ACCESS_KEY_ID": "sync",
    "R2_SECRET_ACCESS_KEY": "sync",
    "JUPYTER_PASSWORD": "jupyter",
    "PUBLIC_KEY": "sshd",
    "SSH_PUBLIC_KEY": "sshd",
    "HF_TOKEN": "gated models",
    "CIVITAI_API_KEY": "gated models",
}
"""Variables whose absence fails only one part of the pod."""


def load_for_boot(environ: Mapping[str, str]) -> tuple[Settings, dict[str, str], dict[str, str]]:
    """Read the settings for a whole pod: (settings, the environment they are from, part -> why it will not work).

    A secret that was not substituted, or is missing, fails the part that needs it and not the pod: a pod without its
    sync can still be reached and mended. Whatever else is wrong is an error, and so is a gate without its token.

    Raises:
        SettingsError: as `load`.
    """
    left = canonical(environ)
    failed: dict[str, str] = {}
    while True:
        settings, problems = parse(environ if not failed else left, whole=True)
        kept = [problem for problem in problems if not _of_a_part(problem, left)]
        if settings is not None and not problems:
            return settings, left, failed
        if kept or not problems:
            raise SettingsError(told(problems))
        for problem in problems:
            part = _PARTS[problem.name]
            failed[part] = "; ".join(filter(None, (failed.get(part), problem.text)))
            left.pop(problem.name, None)
            if part == "sync":
                left["ENABLE_R2_SYNC"] = "false"


def _of_a_part(problem: Problem, environ: Mapping[str, str]) -> bool:
    value = environ.get(problem.name, "")
    return problem.name in _PARTS and (value == "" or UNSUBSTITUTED.search(value) is not None)
