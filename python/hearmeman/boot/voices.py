"""The voice APIs: which of the image's commands serves each on this machine, with what, or why none does."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hearmeman.boot.facts import Machine
from hearmeman.image import VOICE_DIR, Image
from hearmeman.settings import Settings

NAMES = {"xtts": "XTTS", "chatterbox": "Chatterbox"}
"""Process -> what people call its API."""


def problem(name: str, settings: Settings, machine: Machine, image: Image) -> str:
    """Say why a voice API cannot start here; empty if it can."""
    variable = f"ENABLE_{name.upper()}"
    if name not in image.services:
        return (
            f"{variable}=true, but this image (tier {image.tier}) has no {name}: unset {variable} or use another image"
        )
    gpus = len(machine.memory.gpus)
    if gpus and settings.voice_gpu and int(settings.voice_gpu) >= gpus:
        return f"VOICE_GPU={settings.voice_gpu}, but this pod's GPUs are numbered 0 to {gpus - 1}: name one of them"
    # The small engine has no such terms.
    if name == "xtts" and not settings.coqui_tos_agreed and _is_own_engine(name, machine, image):
        return (
            "XTTS v2's licence (Coqui Public Model License 1.0.0) allows commercial use of neither the model "
            "nor the speech it makes: set COQUI_TOS_AGREED=true if you accept that, or unset ENABLE_XTTS"
        )
    return ""


def command(name: str, settings: Settings, machine: Machine, image: Image) -> tuple[str, ...]:
    """Give a voice API's command on this machine; nothing where there is a problem."""
    return () if problem(name, settings, machine, image) else _table(machine, image)[name]


def _table(machine: Machine, image: Image) -> Mapping[str, tuple[str, ...]]:
    return image.services if machine.memory.gpus else {**image.services, **image.services_without_gpu}


def _is_own_engine(name: str, machine: Machine, image: Image) -> bool:
    """Tell whether the engine that the API is named after speaks, and not the small one."""
    small = image.services_without_gpu.get(name)
    return _table(machine, image).get(name) != small


def argv(words: tuple[str, ...], name: str, settings: Settings) -> tuple[str, ...]:
    """Fill in what stands in braces."""
    facts = {
        "host": "127.0.0.1" if settings.gated else getattr(settings, f"{name}_host"),
        "port": getattr(settings, f"{name}_inner_port" if settings.gated else f"{name}_port"),
        "voices": settings.voices_path,
        "models": settings.models_path,
        # Below the outputs: what /tts_to_file saves goes to the bucket with them.
        "output": f"{settings.output_path}/voice",
        "queue": settings.voice_queue,
    }
    return tuple(word.format(**facts) for word in words)


def environment(theirs: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Give a voice API's environment: ComfyUI's, since it has the same user, and what the engines look for."""
    own = {
        # Not a person's: that would come before the engine's packages.
        "PYTHONPATH": str(VOICE_DIR),
        # The engine's own process is started in the same folder, on the volume, which is no place to import from.
        "PYTHONSAFEPATH": "1",
        # Weights come by `models fetch`, verified; an engine fetches and reports nothing by itself.
        "HF_HUB_OFFLINE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "CHATTERBOX_MODEL": settings.chatterbox_model,
        "VOICE_IDLE_UNLOAD_SECONDS": f"{settings.voice_idle_unload_seconds:g}",
        "VOICE_ORIGINS": ",".join(settings.voice_origins),
    }
    if settings.voice_gpu:
        own["CUDA_VISIBLE_DEVICES"] = settings.voice_gpu
    if settings.coqui_tos_agreed:
        # In the one spelling that the engine knows.
        own["COQUI_TOS_AGREED"] = "1"
    return {**{key: value for key, value in theirs.items() if key != "PYTHONHOME"}, **own}


def urls(settings: Settings, running: Collection[str]) -> dict[str, str]:
    """Give where the running voice APIs answer inside the pod, past the gate."""
    ports = {name: f"{name}_inner_port" if settings.gated else f"{name}_port" for name in NAMES if name in running}
    return {name: f"http://127.0.0.1:{getattr(settings, port)}" for name, port in ports.items()}


def shell(settings: Settings, running: Collection[str]) -> dict[str, str]:
    """Give what a shell in the pod needs so that xtts-vo-gen finds an API."""
    found = urls(settings, running)
    return {"VOICE_URL": next(iter(found.values()))} if found else {}


def warnings(settings: Settings, machine: Machine, image: Image) -> list[str]:
    """Say which APIs speak with the small engine although the image carries a larger one."""
    found = [
        service
        for name, service in NAMES.items()
        if getattr(settings, f"enable_{name}")
        and name in image.services
        and image.services != image.services_without_gpu
        and not _is_own_engine(name, machine, image)
    ]
    if not found:
        return []
    who = " and ".join(found)
    small = "hibari, a small English voice that needs no GPU and imitates nobody"
    return [f"no GPU was found: {who} answer with {small}; choose a pod with a GPU for their own voices"]
