"""The nodes that the stand-in runs: their inputs as the real schema has them, and what they make."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from standin import flac, png


@dataclass(frozen=True)
class Images:
    """A batch of one-colour images."""

    width: int
    height: int
    batch: int
    color: int


@dataclass(frozen=True)
class Audio:
    """Silence."""

    samples: int
    rate: int
    channels: int


@dataclass(frozen=True)
class NodeClass:
    """One node class: what it takes and gives, as /object_info tells it."""

    name: str
    category: str
    module: str
    inputs: Mapping[str, tuple[str, Mapping[str, Any]]]
    outputs: tuple[str, ...]
    output_node: bool = False
    display_name: str = ""
    hidden: Mapping[str, Any] = field(default_factory=dict)

    def info(self) -> dict[str, Any]:
        """The class's entry in /object_info."""
        inputs: dict[str, Any] = {"required": {name: [kind, dict(conf)] for name, (kind, conf) in self.inputs.items()}}
        if self.hidden:
            inputs["hidden"] = dict(self.hidden)
        return {
            "input": inputs,
            "input_order": {part: list(entries) for part, entries in inputs.items()},
            "output": list(self.outputs),
            "output_is_list": [False] * len(self.outputs),
            "output_name": list(self.outputs),
            "name": self.name,
            "display_name": self.display_name or self.name,
            "description": "",
            "python_module": self.module,
            "category": self.category,
            "output_node": self.output_node,
        }


def _int(default: int, low: int, high: int) -> tuple[str, Mapping[str, Any]]:
    return "INT", {"default": default, "min": low, "max": high}


_HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
CLASSES: Mapping[str, NodeClass] = {
    node.name: node
    for node in (
        NodeClass(
            "EmptyImage",
            "image",
            "nodes",
            {
                "width": _int(512, 1, 16384),
                "height": _int(512, 1, 16384),
                "batch_size": _int(1, 1, 4096),
                "color": _int(0, 0, 0xFFFFFF),
            },
            ("IMAGE",),
        ),
        NodeClass(
            "SaveImage",
            "image",
            "nodes",
            {"images": ("IMAGE", {}), "filename_prefix": ("STRING", {"default": "ComfyUI"})},
            ("IMAGE",),
            output_node=True,
            display_name="Save Image",
            hidden=_HIDDEN,
        ),
        NodeClass(
            "EmptyAudio",
            "audio",
            "comfy_extras.nodes_audio",
            {
                "duration": ("FLOAT", {"default": 60.0, "min": 0.0, "max": 0xFFFFFFFFFFFFFFFF, "step": 0.01}),
                "sample_rate": _int(44100, 1, 192000),
                "channels": _int(2, 1, 2),
            },
            ("AUDIO",),
        ),
        NodeClass(
            "SaveAudio",
            "audio",
            "comfy_extras.nodes_audio",
            {"audio": ("AUDIO", {}), "filename_prefix": ("STRING", {"default": "audio/ComfyUI"})},
            ("AUDIO",),
            output_node=True,
            display_name="Save Audio (FLAC)",
            hidden=_HIDDEN,
        ),
    )
}

MORE: dict[str, Callable[[Path, Mapping[str, Any]], tuple[Any, list[Pending]]]] = {}
"""What a test's own stand-in adds: a class's name -> what it makes of its inputs, and the files that it writes."""

_MOST_PIXELS = 1 << 30
_MOST_SAMPLES = 1 << 28


def empty_image(values: Mapping[str, Any]) -> Images:
    """Raises MemoryError where the real node's tensor would not fit."""
    made = Images(values["width"], values["height"], values["batch_size"], values["color"])
    if made.width * made.height * made.batch > _MOST_PIXELS:
        raise MemoryError(f"{made.batch} images of {made.width} x {made.height} do not fit in memory")
    return made


def empty_audio(values: Mapping[str, Any]) -> Audio:
    """Raises MemoryError where the real node's tensor would not fit."""
    samples = round(values["duration"] * values["sample_rate"])
    if samples > _MOST_SAMPLES:
        raise MemoryError(f"{samples} samples do not fit in memory")
    return Audio(samples, values["sample_rate"], values["channels"])


@dataclass(frozen=True)
class Pending:
    """A file that a save node is about to write."""

    path: Path
    result: Mapping[str, str]
    content: Callable[[], bytes]


def place(output: Path, prefix: str, width: int, height: int, now: float) -> tuple[Path, str, str, int]:
    """Folder, name without counter, subfolder and next free counter for `prefix`.

    Raises:
        ValueError: the prefix leads out of the output folder.
    """
    stamp = time.localtime(now)
    words = {"%width%": str(width), "%height%": str(height), "%year%": str(stamp.tm_year)}
    parts = {"month": stamp.tm_mon, "day": stamp.tm_mday, "hour": stamp.tm_hour}
    parts |= {"minute": stamp.tm_min, "second": stamp.tm_sec}
    words |= {f"%{key}%": f"{value:02}" for key, value in parts.items()}
    for word, value in words.items():
        prefix = prefix.replace(word, value)
    subfolder, name = os.path.split(os.path.normpath(prefix))
    root = output.resolve()
    folder = Path(os.path.abspath(root / subfolder))  # noqa: PTH100 - links must not be followed here
    if not folder.is_relative_to(root):
        raise ValueError("Saving image outside the output folder is not allowed.")
    folder.mkdir(parents=True, exist_ok=True)
    taken = [_counter(entry.name, name) for entry in folder.iterdir()]
    return folder, name, subfolder, max(taken, default=0) + 1


def _counter(file: str, name: str) -> int:
    if not file.lower().startswith(f"{name.lower()}_"):
        return 0
    digits = file[len(name) + 1 :].split("_")[0].split(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def save_image(output: Path, images: Images, prefix: str, text: Mapping[str, str], now: float) -> list[Pending]:
    """One PNG per image of the batch, `name_00001_.png`."""
    folder, name, subfolder, counter = place(output, prefix, images.width, images.height, now)
    pending = []
    for index in range(images.batch):
        file = f"{name.replace('%batch_num%', str(index))}_{counter + index:05}_.png"
        result = {"filename": file, "subfolder": subfolder, "type": "output"}
        pending.append(
            Pending(folder / file, result, lambda: png.encode(images.width, images.height, images.color, text))
        )
    return pending


def save_audio(output: Path, audio: Audio, prefix: str, text: Mapping[str, str], now: float) -> list[Pending]:
    """One FLAC file, `name_00001.flac`."""
    folder, name, subfolder, counter = place(output, prefix, 0, 0, now)
    file = f"{name.replace('%batch_num%', '0')}_{counter:05}.flac"
    result = {"filename": file, "subfolder": subfolder, "type": "output"}
    return [Pending(folder / file, result, lambda: flac.encode(audio.samples, audio.rate, audio.channels, text))]


def metadata(prompt: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, str]:
    """What a saved file tells of its making: the prompt, and what the client sent as extra_pnginfo."""
    text = {"prompt": json.dumps(prompt)}
    more = extra.get("extra_pnginfo")
    if isinstance(more, dict):
        text |= {str(key): json.dumps(value) for key, value in more.items()}
    return text
