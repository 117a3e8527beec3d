"""Every variable of the pod, declared once and in groups: name, type, default, secret or not, one line of help."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationInfo, field_validator

from hearmeman.image import CATALOGUE_FILE
from hearmeman.settings.declare import var
from hearmeman.settings.endpoint import endpoint_of
from hearmeman.settings.values import (
    Bucket,
    CacheUrl,
    Digits,
    Endpoint,
    Extensions,
    Folder,
    Host,
    Hosts,
    Ids,
    Origins,
    PodName,
    Prefix,
    Unit,
    Url,
    prefix_problem,
    several,
)

Seconds = Annotated[float, Unit("seconds")]
_DAY = 86400


class _Group(BaseModel):
    """Variables of one kind; only the settings as a whole are ever validated."""

    model_config = ConfigDict(defer_build=True)


class Places(_Group):
    """Where things are kept."""

    volume_dir: Folder = var("/workspace", "where the volume is mounted; /runpod-volume on serverless")
    storage_mode: Literal["auto", "ephemeral", "persistent"] = var(
        "auto", "what the volume is: persistent refuses to boot where nothing is mounted, auto accepts either"
    )
    models_dir: Folder = var("", "where models are kept; empty means VOLUME_DIR/ComfyUI/models")
    comfyui_output_dir: Folder = var(
        "", "where outputs appear; empty means VOLUME_DIR/ComfyUI/output; for a worker, a folder of its own in it"
    )
    state_dir: Folder = var("", "this pod's state; empty means VOLUME_DIR/.hearmeman/RUNPOD_POD_ID")


class ComfyUI(_Group):
    """ComfyUI."""

    comfyui_host: Hosts = var(("0.0.0.0",), "addresses that ComfyUI's port is open on")
    comfyui_port: int = var(8188, "port of ComfyUI", ge=1, le=65535)
    comfyui_inner_port: int = var(
        18188, "with ACCESS_TOKEN: port on loopback that ComfyUI itself listens on, behind the gate", ge=1, le=65535
    )
    comfyui_args: str = var(
        "", "extra ComfyUI arguments; they win over the tuner's; empty or 'auto' means none", ("CLI_ARGS",)
    )
    update_nodes_on_start: bool = var(False, "pull the custom nodes on the volume before ComfyUI starts")
    update_nodes_seconds: Seconds = var(120, "seconds that updating all nodes may take", ge=1, le=_DAY)
    comfyui_commit: str = var("", "the image's ComfyUI commit; set by the image", given=True)


class Memory(_Group):
    """Memory."""

    gpu_tier: Literal["auto", "consumer", "prosumer", "datacenter"] = var("auto", "GPU tier; auto detects it")
    gpu_memory_mode: Literal["auto", "full", "model_cpu_offload", "sequential_cpu_offload"] = var(
        "auto", "memory mode; auto follows the GPU"
    )
    sage_attention: bool = var(
        False,
        "use SageAttention if a test on this GPU passes; ComfyUI waits for the test. It is faster and less exact, "
        "and some models make black pictures with it",
    )


class Doors(_Group):
    """Doors: who may come in, and where."""

    access_token: SecretStr | None = var(
        None,
        "put a gate that requires this token before ComfyUI, the voice APIs and the status page",
        ("COMFYUI_TOKEN",),
        secret="access_token",
    )
    status_host: Hosts = var(("0.0.0.0",), "addresses that the status page's port is open on")
    status_port: int = var(19123, "port of the status page, /healthz and /readyz", ge=1, le=65535)
    public_key: str = var("", "SSH public keys, one a line; sshd starts when it is set")
    ssh_public_key: str = var("", "SSH public keys for this pod alone; replaces PUBLIC_KEY", given=True)
    ssh_port: int = var(22, "port of sshd", ge=1, le=65535)
    notify_url: SecretStr | None = var(
        None,
        "where the pod says that it is ready, that a part failed, that a batch is done or that it stops soon: a "
        "webhook "
        "(JSON; Slack and Discord read it), or ntfys://HOST/TOPIC",
        secret="notify_url",
    )
    jupyter_password: SecretStr | None = var(
        None, "JupyterLab's token; JupyterLab starts when it is set", ("JUPYTER_TOKEN",), secret="jupyter_password"
    )
    jupyter_host: Host = var("0.0.0.0", "address that JupyterLab's port is open on")
    jupyter_port: int = var(8888, "port of JupyterLab", ge=1, le=65535)

    @field_validator("notify_url")
    @classmethod
    def _address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"(https?|ntfys?)://[^/\s]+(/\S*)?", value.get_secret_value()):
            raise ValueError("must be an address that begins with https://, http://, ntfys:// or ntfy://")
        return value

    @field_validator("access_token", "jupyter_password")
    @classmethod
    def _guarded(cls, value: SecretStr | None) -> SecretStr | None:
        # These ports are open to the internet: a short word would be guessed.
        if value is not None and not re.fullmatch(r"[\x21-\x7e]{12,}", value.get_secret_value()):
            raise ValueError("must be at least 12 printable characters without spaces, since the port is public")
        return value


class Voices(_Group):
    """Voice APIs."""

    enable_xtts: bool = var(False, "fetch XTTS v2 and run its API")
    xtts_host: Host = var("127.0.0.1", "address that the XTTS API's port is open on")
    xtts_port: int = var(8020, "port of the XTTS API", ge=1, le=65535)
    xtts_inner_port: int = var(18020, "with ACCESS_TOKEN: the XTTS API's own port on loopback", ge=1, le=65535)
    coqui_tos_agreed: bool = var(
        False,
        "you accept XTTS v2's licence (CPML): neither the model nor the speech that it makes may be used commercially",
    )
    enable_chatterbox: bool = var(False, "fetch Chatterbox and run its API")
    chatterbox_host: Host = var("127.0.0.1", "address that the Chatterbox API's port is open on")
    chatterbox_port: int = var(8000, "port of the Chatterbox API", ge=1, le=65535)
    chatterbox_inner_port: int = var(
        18000, "with ACCESS_TOKEN: the Chatterbox API's own port on loopback", ge=1, le=65535
    )
    chatterbox_model: Literal["multilingual", "english"] = var(
        "multilingual", "which Chatterbox to fetch and use: 23 languages, or English only"
    )
    voice_gpu: Digits = var("", "number of the GPU that the voices use, from 0; empty: the first, as ComfyUI does")
    voice_queue: int = var(16, "requests that may wait for each voice engine; further ones are refused", ge=0, le=1000)
    voice_idle_unload_seconds: Seconds = var(
        900, "seconds without a request after which a voice engine gives its GPU memory back; 0: never", ge=0, le=_DAY
    )
    voice_origins: Origins = var(
        (),
        "web pages on other addresses that may use the voice APIs through a tunnel; those on your own machine always may",
    )


class Models(_Group):
    """Models: what is fetched, and from where."""

    model_catalogue: str = var(str(CATALOGUE_FILE), "the file that lists what can be fetched")
    models: Ids = var(
        "",
        "models to fetch besides those that toggles enable: ids of the catalogue, or addresses such as"
        " civitai:VERSION@loras, hf:OWNER/REPO/PATH@checkpoints, https://HOST/PATH@vae",
    )
    wait_for_models: bool = var(False, "start ComfyUI only when every enabled model is present")
    dry_run: bool = var(False, "print the fetch plan and fetch nothing")
    download_timeout: Annotated[int, Unit("seconds")] = var(
        1800, "seconds without progress after which a download is cut", ge=1, le=_DAY
    )
    volume_size_gb: Annotated[float, Unit("GB")] = var(
        0,
        "the volume's quota in GB where the filesystem does not show it; 0 means ask the filesystem",
        ge=0,
        le=1_000_000,
    )
    enable_controlnet: bool = var(True, "fetch the SD 1.5 ControlNet weights (a base model is needed beside them)")
    controlnet_models: Annotated[str, several("canny", "depth", "openpose", "lineart", "normalbae")] = var(
        "canny,depth,openpose", "which ControlNets"
    )
    enable_vibevoice: bool = var(False, "fetch VibeVoice (speech in ComfyUI)")
    vibevoice_model: Literal["1.5B", "Large", "Large-Q8"] = var("Large", "which VibeVoice")
    wan_720p: bool = var(False, "fetch WAN 2.1 text-to-video 14B")
    wan_480p: bool = var(False, "fetch WAN 2.1 text-to-video 1.3B")
    enable_i2v: bool = var(False, "fetch WAN 2.1 image-to-video 14B and its CLIP vision encoder")
    enable_wan22_distill: bool = var(False, "fetch the WAN 2.2 image-to-video experts for 4 steps")
    wan22_distill_variant: Literal["lightx2v", "turbodiffusion"] = var(
        "lightx2v", "how they get by with 4 steps: LoRAs in ComfyUI's own nodes, or TurboDiffusion's files and nodes"
    )
    enable_wan22_ti2v: bool = var(False, "fetch WAN 2.2 text-and-image-to-video 5B")
    enable_vace: bool = var(False, "fetch WAN 2.1 VACE 14B (video editing)")
    enable_fun_inp: bool = var(False, "fetch WAN 2.2 Fun InP 14B (between a first and a last frame)")
    enable_steadydancer: bool = var(False, "fetch SteadyDancer 14B (makes a picture dance like a video)")
    enable_scail: bool = var(False, "fetch SCAIL preview 14B (makes a character move like a 3D pose)")
    enable_illustrious: bool = var(False, "fetch Realism Illustrious v5.0 (SDXL, from CivitAI)")
    enable_illustrious_embeddings: bool = var(True, "with ENABLE_ILLUSTRIOUS: fetch its two embeddings too")
    enable_zimage: bool = var(False, "fetch Z-Image Turbo")
    enable_qwen_edit: bool = var(False, "fetch Qwen-Image-Edit-2511")
    qwen_edit_model: Literal["Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "fp8", "full"] = var(
        "Q4_K_M", "which Qwen-Image-Edit: a GGUF quantisation, fp8, or full for bf16"
    )
    enable_genfocus: bool = var(False, "fetch Genfocus; MODELS=flux1-dev fetches its gated base FLUX.1-dev")
    enable_mvinverse: bool = var(False, "fetch MVInverse, which may be used non-commercially only")
    enable_flashportrait: bool = var(False, "fetch FlashPortrait, for its own node")
    enable_storymem: bool = var(False, "fetch StoryMem (not for commercial use)")
    enable_infcam: bool = var(
        False, "fetch InfCam on a datacenter GPU; its code has no licence and is not in the image"
    )
    download_connections: int = var(32, "connections that all downloads together may use", ge=1, le=256)
    download_connections_per_file: int = var(16, "connections that one file may use", ge=1, le=64)
    download_xet: bool = var(True, "use Hugging Face's Xet storage where it is offered, plain HTTP when it fails")
    model_host_cache: Folder = var(
        "/runpod-volume/huggingface-cache/hub",
        "where RunPod puts its cached models; those that the catalogue knows are used from there once they are "
        "verified",
    )
    model_cache: CacheUrl = var(
        "",
        "a bucket of your own that serves and keeps models, s3://BUCKET/PREFIX; it uses R2_ENDPOINT and R2's two keys",
    )
    model_cache_restricted: bool = var(
        False,
        "keep models in MODEL_CACHE even if their licence has to be accepted or forbids copies (gated ones, "
        "CPML): only where the bucket is yours alone",
    )
    civitai_api_key: SecretStr | None = var(
        None, "CivitAI API key, for files that require a login", ("CIVITAI_TOKEN",), secret="civitai_key"
    )
    civitai_endpoint: Url = var("https://civitai.com", "address of CivitAI")
    hf_token: SecretStr | None = var(
        None, "Hugging Face token for gated models", ("HUGGING_FACE_HUB_TOKEN",), secret="hf_token"
    )
    hf_endpoint: Url = var("https://huggingface.co", "address of the Hugging Face Hub")


class Sync(_Group):
    """Outputs: where they are uploaded."""

    enable_r2_sync: bool = var(False, "upload outputs to the bucket as they appear")
    r2_bucket: Bucket = var("runpod", "bucket that outputs go to")
    r2_endpoint: Endpoint = var(
        "", "address of the S3 endpoint, without the bucket's name; required with ENABLE_R2_SYNC"
    )
    r2_prefix: Prefix = var("outputs", "first part of every object's key")
    r2_access_key_id: SecretStr | None = var(None, "access key; required with ENABLE_R2_SYNC", secret="r2_access_key")
    r2_secret_access_key: SecretStr | None = var(
        None, "secret key; required with ENABLE_R2_SYNC", secret="r2_secret_key"
    )
    sync_extensions: Extensions = var(
        "png,jpg,jpeg,webp,mp4,webm,gif,wav,mp3,flac", "file name extensions that are uploaded, in any case"
    )
    sync_uploads: int = var(12, "files uploaded at one time", ge=1, le=64)
    sync_bandwidth: float = var(
        0, "MB a second that all uploads together may take (1 MB is a million bytes); 0 means no limit", ge=0
    )
    sync_watch: bool = var(
        True, "let the kernel report which files are closed and so finished; without it they must be still for longer"
    )
    sync_drain_seconds: Seconds = var(20, "seconds the sync may use at stop to send what is left", ge=0, le=_DAY)

    sync_keep_local_days: float = var(
        0,
        "remove outputs from the volume this many days after their last change, if they are proven to be in the "
        "bucket; 0 keeps them",
        ge=0,
    )
    sync_keep_local_gb: float = var(
        0, "remove the oldest such outputs while all outputs take more than this many GB; 0 keeps them", ge=0
    )
    sync_provenance: bool = var(
        True, "record how each output was made, so that `hearmeman workflows rerun` can make them again"
    )
    sync_workspace: bool = var(
        False,
        "with ENABLE_R2_SYNC: keep ComfyUI's user folder, inputs and the list of added nodes and packages in "
        "the bucket, "
        "and bring back what a new pod lacks",
    )

    @field_validator("r2_endpoint")
    @classmethod
    def _endpoint(cls, value: str, info: ValidationInfo) -> str:
        # The bucket is declared, and so validated, before the endpoint.
        return endpoint_of(value, info.data.get("r2_bucket", "")) if value else value

    @field_validator("r2_prefix")
    @classmethod
    def _whole(cls, value: str) -> str:
        if problem := prefix_problem(value):
            raise ValueError(problem)
        return value


class Worker(_Group):
    """The serverless worker."""

    enable_worker: bool = var(False, "take jobs from RunPod Serverless; the container's command `worker` sets it")
    worker_warmup: str = var(
        "", "workflow of the image that is run before the first job, so that its models are loaded"
    )
    worker_input_mb: float = var(200, "largest file that a job may bring, in MB (1 MB is a million bytes)", gt=0)
    worker_input_seconds: Seconds = var(120, "seconds that fetching one file of a job may take", ge=1, le=_DAY)
    worker_private_urls: bool = var(
        False, "let jobs name addresses of private networks, such as a bucket of your own beside the worker"
    )
    worker_public_url: Url = var("", "public address of R2_BUCKET; empty means signed addresses that last seven days")


class Stop(_Group):
    """Stopping, and what cannot start."""

    hold_on_error: Literal["auto", "true", "false"] = var(
        "auto", "keep a pod alive that cannot start, with the reason on its ports and over SSH; auto: on RunPod"
    )
    stop_seconds: Seconds = var(30, "seconds the whole stop may take", ge=1, le=_DAY)
    idle_stop_minutes: float = var(
        0,
        "minutes without a job, speech, session, fetch or upload after which the pod ends itself; 0: never",
        ge=0,
        le=100_000,
    )
    max_minutes: float = var(0, "minutes after which the pod ends itself, used or not; 0: never", ge=0, le=100_000)
    idle_action: Literal["stop", "terminate"] = var(
        "stop", "how it ends itself: stop keeps the pod's disk, which is paid for; terminate deletes the pod"
    )


class Given(_Group):
    """Given by RunPod, or by boot."""

    runpod_pod_id: PodName = var("local", "the pod's name", given=True)
    comfyui_url: str = var("", "where ComfyUI answers inside the pod; boot sets it", given=True)
    image_digest: str = var("", "the image's digest, set by hearmeman-pod; recorded with outputs", given=True)
    dollars_per_hour: float = var(
        0,
        "the pod's price an hour when it was created, set by hearmeman-pod; its page shows it",
        given=True,
        ge=0,
    )
    runpod_volume_id: str = var("", "the network volume's name; empty without one", given=True)
    runpod_public_ip: str = var("", "address of the pod's TCP ports", given=True)
    runpod_tcp_port_22: Digits = var("", "public port that leads to SSH", given=True)
    runpod_api_key: SecretStr | None = var(
        None, "the pod's own key for RunPod's API; only the process that ends the pod gets it", given=True
    )
    runpod_api_url: Url = var("https://api.runpod.io", "address of RunPod's API", given=True)

    @field_validator("runpod_pod_id")
    @classmethod
    def _no_folder_of_ours(cls, value: str) -> str:
        if value in ("comfyui", "jupyter", "overlays"):
            raise ValueError("is the name of a folder beside this pod's state: give the pod another name")
        return value


ALL = (Places, ComfyUI, Memory, Doors, Voices, Models, Sync, Worker, Stop, Given)
"""The groups, in the order in which they are shown."""
