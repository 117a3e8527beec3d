"""What the image says about itself: image.json, written when it is built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hearmeman.errors import HearmemanError

DATA_DIR = Path("/opt/hearmeman")
"""Our package's own data in the image."""
IMAGE_FILE = DATA_DIR / "image.json"
CATALOGUE_FILE = DATA_DIR / "catalogue.toml"
WORKFLOWS_DIR = DATA_DIR / "workflows"
COMMANDS_DIR = DATA_DIR / "bin"
"""What stands before all else in a person's PATH."""
NODES_DIR = Path("/opt/comfyui-nodes")
"""The image's custom nodes."""
MODELS_DIR = Path("/opt/models")
"""The models of an image that has some baked in."""
VOICE_DIR = DATA_DIR / "voice"
"""Where the voice servers' package lies: in no environment, since several run it."""
RUN_DIR = Path("/run/hearmeman")
"""Where boot keeps what lasts until the pod stops."""
WORKER_DIR = Path("/tmp/hearmeman-worker")
"""Where a serverless worker's ComfyUI keeps jobs' inputs and its temporary files: on the container's own disk."""


class ImageError(HearmemanError):
    """image.json cannot be used."""


@dataclass(frozen=True)
class Image:
    """The image's own facts."""

    tier: str
    """Which of nix/tiers.nix it was built for."""
    comfyui_rev: str
    """ComfyUI's commit."""
    comfyui_python: str
    """The interpreter that runs ComfyUI."""
    comfyui_main: str
    """ComfyUI's main.py."""
    cuda_floor: str
    """Lowest CUDA version that the driver must offer."""
    env: Mapping[str, str] = field(default_factory=dict)
    """The tier's defaults of variables; the pod's own values win."""
    recommended: Mapping[str, str] = field(default_factory=dict)
    """Variables that a template for the tier sets besides: what is worth its download on such a GPU."""
    jupyter_python: str = ""
    """The interpreter that runs JupyterLab; empty where the image carries none."""
    worker_python: str = ""
    """The interpreter that has RunPod's SDK; empty where the image carries none."""
    services: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Voice API (xtts, chatterbox) -> its command; boot fills in what stands in braces: host, port, folders, queue."""
    services_without_gpu: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The same where no GPU is seen."""
    silent_nodes: tuple[str, ...] = ()
    """Custom nodes that bring no class of their own, so that /object_info cannot show whether they loaded."""
    comfyui_arguments: tuple[str, ...] = ()
    """Arguments that this image's ComfyUI is always given."""
    environment_key: str = ""
    """Names the Python packages that ComfyUI runs with; what is added on the volume was built for these."""
    node_folders: tuple[str, ...] = ()
    """Folders inside the image's nodes, as NODE/FOLDER, that lead to the volume, since their nodes write there."""
    models_dir: str = ""
    """Folder of the models that are part of the image; empty if none is."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """The file's whole content."""


def read_image(path: Path) -> Image:
    """Read image.json.

    Raises:
        ImageError: the file is missing, or is not what a build writes.
    """
    fix = "This file is part of the image: build or pull it again."
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ImageError(
            f"there is no {path}, which is part of the image: run this in the image, or name another file with --image-file"
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not JSON ({error})"
        raise ImageError(f"{path} cannot be read: {reason}. {fix}") from error
    if not isinstance(raw, dict):
        raise ImageError(f"{path} is not a JSON object. {fix}")
    texts = ("tier", "comfyui_rev", "comfyui_python", "comfyui_main", "cuda_floor")
    wrong = [name for name in texts if not isinstance(raw.get(name), str) or not raw[name]]
    variables = {name: raw.get(name, {}) for name in ("env", "recommended")}
    for name, env in variables.items():
        if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
            wrong.append(name)
    services = {name: raw.get(name, {}) for name in ("services", "services_without_gpu")}
    for name, table in services.items():
        if not isinstance(table, dict) or not all(_is_words(argv) and argv for argv in table.values()):
            wrong.append(name)
    lists = {name: raw.get(name, []) for name in ("silent_nodes", "comfyui_arguments", "node_folders")}
    wrong += [name for name, words in lists.items() if not _is_words(words)]
    extra = {name: raw.get(name, "") for name in ("environment_key", "jupyter_python", "worker_python", "models_dir")}
    wrong += [name for name, text in extra.items() if not isinstance(text, str)]
    if wrong:
        raise ImageError(f"{path} lacks or has wrong {', '.join(wrong)}. {fix}")
    commands, small = ({name: tuple(argv) for name, argv in table.items()} for table in services.values())
    facts = {name: raw[name] for name in texts} | extra | {name: tuple(words) for name, words in lists.items()}
    return Image(**facts, **variables, services=commands, services_without_gpu=small, raw=raw)


def _is_words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)
