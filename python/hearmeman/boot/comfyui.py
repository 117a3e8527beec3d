"""ComfyUI's command line, its database, and the folders that are its own."""

from __future__ import annotations

from hearmeman.image import WORKER_DIR, Image
from hearmeman.settings import Settings
from hearmeman.tune.tuner import Tuning


def comfyui_argv(settings: Settings, image: Image, tuning: Tuning, run_dir: str) -> tuple[str, ...]:
    """Build ComfyUI's command."""
    base = settings.comfyui_dir
    hosts = ",".join(host for host, _ in settings.comfyui_listens)
    argv = [image.comfyui_python, image.comfyui_main]
    argv += ["--listen", hosts, "--port", str(settings.comfyui_listens[0][1])]
    argv += ["--base-directory", base, "--models-directory", settings.models_path, "--user-directory", f"{base}/user"]
    argv += ["--database-url", f"sqlite:///{database(settings)}"]
    argv += ["--extra-model-paths-config", f"{run_dir}/extra_model_paths.yaml"]
    if settings.output_path != f"{base}/output":
        argv += ["--output-directory", settings.output_path]
    if settings.enable_worker:
        # It empties its temporary folder when it starts, also where another worker shares the volume.
        argv += ["--input-directory", settings.input_path, "--temp-directory", str(WORKER_DIR)]
    return (*argv, "--disable-auto-launch", "--log-stdout", *image.comfyui_arguments, *tuning.arguments)


def database(settings: Settings) -> str:
    """Give ComfyUI's database: one for each pod, since several may mount one volume and ComfyUI locks the file."""
    return f"{settings.own_path}/{settings.runpod_pod_id}/comfyui.db"


def comfyui_folders(settings: Settings) -> tuple[str, ...]:
    """Give the folders that are ComfyUI's with all that is in them."""
    folders = (settings.comfyui_dir, settings.models_path, settings.output_path, settings.cache_path, settings.own_path)
    found = [folder for folder in dict.fromkeys(folders) if folder != settings.volume_dir]
    return tuple(x for x in found if not any(x != other and x.startswith(f"{other}/") for other in found))
