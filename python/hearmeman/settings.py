"""Every variable of the pod, declared once: name, type, default, secret or not, one line of help."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from hearmeman.errors import UsageError

_UNSUBSTITUTED = re.compile(r"\{\{\s*RUNPOD_SECRET_\w+\s*\}\}")


def _var(default: Any, help: str, **limits: Any) -> Any:
    return Field(default=default, description=help, **limits)


class Settings(BaseModel):
    """The pod's settings; one field is one environment variable of the same name in capitals."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    volume_dir: str = _var("/workspace", "where the volume is mounted", pattern="^/")
    models_dir: str = _var("", "where models are kept; empty means VOLUME_DIR/ComfyUI/models", pattern="^(/.*)?$")
    comfyui_output_dir: str = _var(
        "", "where outputs appear; empty means VOLUME_DIR/ComfyUI/output", pattern="^(/.*)?$"
    )
    state_dir: str = _var("", "this pod's state; empty means VOLUME_DIR/.hearmeman/RUNPOD_POD_ID", pattern="^(/.*)?$")
    runpod_pod_id: str = _var("local", "the pod's name, given by RunPod", pattern="^[A-Za-z0-9_.-]+$")

    comfyui_host: str = _var("0.0.0.0", "address that ComfyUI listens on")
    comfyui_port: int = _var(8188, "port that ComfyUI listens on", ge=1, le=65535)
    comfyui_args: str = _var("", "extra ComfyUI arguments; empty or 'auto' lets the tuner choose")
    gpu_tier: Literal["auto", "consumer", "prosumer", "datacenter"] = _var("auto", "GPU tier; auto detects it")
    gpu_memory_mode: Literal["auto", "full", "model_cpu_offload", "sequential_cpu_offload"] = _var(
        "auto", "memory mode; auto follows the GPU"
    )

    model_catalogue: str = _var("/opt/hearmeman/catalogue.toml", "the file that lists what can be fetched")
    models: str = _var("", "catalogue ids to fetch, separated by commas, beside those that toggles ask for")
    wait_for_models: bool = _var(False, "start ComfyUI only when every enabled model is present")
    dry_run: bool = _var(False, "print the fetch plan and fetch nothing")
    download_timeout: int = _var(1800, "seconds without progress after which a download is cut", ge=1)
    volume_size_gb: float = _var(
        0, "the volume's quota in GB where the filesystem does not show it; 0 means ask it", ge=0
    )
    enable_controlnet: bool = _var(True, "fetch the SD 1.5 ControlNet weights (a base model is needed beside them)")
    controlnet_models: str = _var(
        "canny,depth,openpose",
        "which ControlNets, separated by commas: canny, depth, openpose, lineart, normalbae",
        pattern=r"^ *(canny|depth|openpose|lineart|normalbae)( *, *(canny|depth|openpose|lineart|normalbae))* *$",
    )
    enable_vibevoice: bool = _var(False, "fetch VibeVoice (speech in ComfyUI)")
    vibevoice_model: Literal["1.5B", "Large", "Large-Q8"] = _var("Large", "which VibeVoice")
    wan_720p: bool = _var(False, "fetch WAN 2.1 text-to-video 14B")
    wan_480p: bool = _var(False, "fetch WAN 2.1 text-to-video 1.3B")
    enable_i2v: bool = _var(False, "fetch WAN 2.1 image-to-video 14B and its CLIP vision encoder")
    enable_wan22_distill: bool = _var(False, "fetch the WAN 2.2 image-to-video experts for 4 steps")
    wan22_distill_variant: Literal["lightx2v", "turbodiffusion"] = _var(
        "lightx2v", "how they come to 4 steps: LoRAs in ComfyUI's own nodes, or TurboDiffusion's files and nodes"
    )
    enable_wan22_ti2v: bool = _var(False, "fetch WAN 2.2 text-and-image-to-video 5B")
    enable_vace: bool = _var(False, "fetch WAN 2.1 VACE 14B (video editing)")
    enable_fun_inp: bool = _var(False, "fetch WAN 2.2 Fun InP 14B (between a first and a last frame)")
    enable_steadydancer: bool = _var(False, "fetch SteadyDancer 14B (a picture dances like a video)")
    enable_scail: bool = _var(False, "fetch SCAIL preview 14B (a character moves like a 3D pose)")
    enable_illustrious: bool = _var(False, "fetch Realism Illustrious v5.0 (SDXL, from CivitAI)")
    enable_illustrious_embeddings: bool = _var(True, "with ENABLE_ILLUSTRIOUS: fetch its two embeddings too")
    enable_zimage: bool = _var(False, "fetch Z-Image Turbo")
    enable_qwen_edit: bool = _var(False, "fetch Qwen-Image-Edit-2511")
    qwen_edit_model: Literal["Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "fp8", "full"] = _var(
        "Q4_K_M", "which Qwen-Image-Edit: a GGUF quantisation, fp8, or full for bf16"
    )
    enable_genfocus: bool = _var(False, "fetch Genfocus (nothing in the image loads it; FLUX.1-dev is gated)")
    enable_mvinverse: bool = _var(False, "fetch MVInverse's weights (nothing in the image loads them)")
    enable_flashportrait: bool = _var(False, "fetch FlashPortrait")
    enable_storymem: bool = _var(False, "fetch StoryMem (nothing in the image loads it)")
    enable_infcam: bool = _var(False, "fetch InfCam on a datacenter GPU (nothing in the image loads it)")
    enable_xtts: bool = _var(False, "fetch XTTS v2 and run its API")
    enable_chatterbox: bool = _var(False, "fetch Chatterbox and run its API")
    download_connections: int = _var(32, "connections that all downloads together may use", ge=1, le=256)
    download_connections_per_file: int = _var(16, "connections that one file may use", ge=1, le=64)
    download_xet: bool = _var(True, "use Hugging Face's Xet storage where it is offered, plain HTTP when it fails")
    civitai_api_key: SecretStr | None = _var(None, "CivitAI API key, for files that want a login")
    civitai_endpoint: str = _var("https://civitai.com", "address of CivitAI", pattern="^https?://")
    hf_token: SecretStr | None = _var(None, "Hugging Face token for gated models")
    hf_endpoint: str = _var("https://huggingface.co", "address of the Hugging Face Hub", pattern="^https?://")

    enable_r2_sync: bool = _var(False, "upload outputs to the bucket as they appear")
    r2_endpoint: str = _var("", "address of the S3 endpoint; required with ENABLE_R2_SYNC", pattern="^(https?://.+)?$")
    r2_bucket: str = _var("runpod", "bucket that outputs go to", pattern="^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    r2_prefix: str = _var("outputs", "first part of every object's key", pattern="^[^/].*[^/]$|^[^/]$", max_length=100)
    r2_access_key_id: SecretStr | None = _var(None, "access key; required with ENABLE_R2_SYNC")
    r2_secret_access_key: SecretStr | None = _var(None, "secret key; required with ENABLE_R2_SYNC")
    sync_extensions: str = _var(
        "png,jpg,jpeg,webp,mp4,webm,gif,wav,mp3,flac", "file name extensions that are uploaded, in any case"
    )
    sync_uploads: int = _var(12, "files uploaded at one time", ge=1, le=64)
    sync_watch: bool = _var(True, "hear of new files from the kernel; they are found by looking either way")
    sync_drain_seconds: float = _var(20, "seconds the sync may use at stop to send what is left", ge=0)
    stop_seconds: float = _var(30, "seconds the whole stop may take", ge=1)

    @field_validator("*", mode="after")
    @classmethod
    def _substituted(cls, value: Any) -> Any:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if isinstance(text, str) and _UNSUBSTITUTED.search(text):
            raise ValueError(
                "holds a RunPod secret that was not substituted: make that secret in RunPod's console or unset the variable"
            )
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
    def state_path(self) -> str:
        """This pod's state folder."""
        return self.state_dir or f"{self.volume_dir}/.hearmeman/{self.runpod_pod_id}"


SECRETS = frozenset(
    name.upper() for name, field in Settings.model_fields.items() if field.annotation == SecretStr | None
)
"""Names of the variables that never appear in logs, argv or another process's environment."""


class SettingsError(UsageError):
    """One or more variables are wrong; the message names all of them."""


def load(environ: Mapping[str, str], whole: bool = False) -> Settings:
    """Read the settings from `environ`; empty values count as unset.

    `whole` asks for what belongs together: a single process of the pod is not given the others' secrets.

    Raises:
        SettingsError: names every wrong variable, its value unless secret, and what it takes.
    """
    known = {name.upper(): name for name in Settings.model_fields}
    given = {known[key]: value for key, value in environ.items() if key in known and value != ""}
    problems = _misspelt(environ, known) + (_missing(environ) if whole else [])
    settings = None
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        for item in error.errors():
            name = str(item["loc"][0]).upper() if item["loc"] else ""
            shown = "" if not name or name in SECRETS else f"={environ.get(name, '')!r}"
            message = item["msg"].removeprefix("Value error, ")
            problems.append(f"{name}{shown}: {message}" if name else message)
    if settings is None or problems:
        raise SettingsError("settings are wrong, nothing was started:\n" + "\n".join(f"  {p}" for p in problems))
    return settings


_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})


def _missing(environ: Mapping[str, str]) -> list[str]:
    if environ.get("ENABLE_R2_SYNC", "").lower() not in _TRUE:
        return []
    names = ("R2_ENDPOINT", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")
    return [f"{name} is required when ENABLE_R2_SYNC=true" for name in names if not environ.get(name)]


_PREFIXES = ("ENABLE_", "R2_", "COMFYUI_", "GPU_", "HF_TOKEN", "SYNC_")


def _misspelt(environ: Mapping[str, str], known: Mapping[str, str]) -> list[str]:
    problems = []
    for key in sorted(environ):
        if key in known or not key.startswith(_PREFIXES):
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.85)
        if near:
            problems.append(f"{key} is not a variable: did you mean {near[0]}?")
    return problems
