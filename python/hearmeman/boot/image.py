"""What the image says about itself: image.json, written when it is built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hearmeman.errors import HearmemanError

IMAGE_FILE = Path("/opt/hearmeman/image.json")
TIERS = ("smoke", "consumer", "prosumer", "datacenter")


class ImageError(HearmemanError):
    """image.json cannot be used."""


@dataclass(frozen=True)
class Image:
    """The image's own facts."""

    tier: str
    """Which of TIERS it was built for."""
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
    raw: Mapping[str, Any] = field(default_factory=dict)
    """The file's whole content."""


def read_image(path: Path) -> Image:
    """Read image.json.

    Raises:
        ImageError: the file is missing, is not what a build writes, or names an unknown tier.
    """
    mend = "This file is part of the image: build or pull it again, or name another with --image-file."
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not JSON ({error})"
        raise ImageError(f"{path} cannot be read: {reason}. {mend}") from error
    if not isinstance(raw, dict):
        raise ImageError(f"{path} holds no JSON object. {mend}")
    texts = ("tier", "comfyui_rev", "comfyui_python", "comfyui_main", "cuda_floor")
    wrong = [name for name in texts if not isinstance(raw.get(name), str) or not raw[name]]
    env = raw.get("env", {})
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        wrong.append("env")
    if wrong:
        raise ImageError(f"{path} lacks or misstates {', '.join(wrong)}. {mend}")
    if raw["tier"] not in TIERS:
        raise ImageError(f"{path} names the unknown tier {raw['tier']!r}; known are {', '.join(TIERS)}. {mend}")
    return Image(**{name: raw[name] for name in texts}, env=env, raw=raw)
