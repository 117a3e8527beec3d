"""A stand-in that has all of ComfyUI's node classes, and makes small films whose colour tells of the seed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from standin import nodes, server  # noqa: E402

_KINDS = ("INT", "FLOAT", "STRING", "BOOLEAN")


def _input(spec: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, list) and spec and spec[0] in _KINDS:
        low, high = [*spec, None, None, None][2:4] if spec[0] in ("INT", "FLOAT") else (None, None)
        return spec[0], {name: value for name, value in (("min", low), ("max", high)) if value is not None}
    return "COMBO", {}


def _seeds(value: Any) -> list[int]:
    """Every seed in a value, its inputs' and theirs."""
    if not isinstance(value, Mapping):
        return []
    own = [value["seed"]] if "seed" in value else []
    return own + [seed for inner in value.values() for seed in _seeds(inner)]


def _size(value: Any) -> tuple[int, int, int] | None:
    """Width, height and frames of what a sampler was given, memories or not."""
    if not isinstance(value, Mapping):
        return None
    if "num_frames" in value:
        return value["width"], value["height"], value["num_frames"]
    return next((size for inner in value.values() if (size := _size(inner))), None)


def _value(output: Path, given: Mapping[str, Any]) -> tuple[Any, list[nodes.Pending]]:
    return dict(given), []


def _file(name: str) -> Any:
    def load(output: Path, given: Mapping[str, Any]) -> tuple[Any, list[nodes.Pending]]:
        path = output.parent / "input" / given[name]
        if not path.is_file():
            raise FileNotFoundError(f"Invalid file: {given[name]}")
        probe = ["ffprobe", "-v", "error", "-count_packets", "-show_entries", "stream=nb_read_packets,width,height"]
        said = subprocess.run([*probe, "-of", "json", str(path)], capture_output=True, check=True).stdout
        return {"file": str(path), "is": json.loads(said)["streams"][0]}, []

    return load


def _film(output: Path, given: Mapping[str, Any]) -> tuple[Any, list[nodes.Pending]]:
    size = _size(given)
    assert size is not None
    width, height, frames = size
    seed = max(_seeds(given))
    if seed == 666 and not (output.parent / "mended").exists():
        raise RuntimeError("a tensor has the wrong shape")
    folder, name, subfolder, counter = nodes.place(output, given["filename_prefix"], width, height, time.time())
    file = f"{name}_{counter:05}.mp4"
    (output.parent / "seen.jsonl").open("a").write(json.dumps(given) + "\n")

    def content() -> bytes:
        # A colour for each seed, and a brightness for each frame.
        source = f"color=c=0x{seed % 200:02x}4040:s={width}x{height}:r=16"
        path = folder / f".{file}"
        words = ["-frames:v", str(frames), "-c:v", "libx264", "-preset", "ultrafast", "-crf", "1", "-f", "mp4"]
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, *words, str(path)], check=True)
        made = path.read_bytes()
        path.unlink()
        return made

    result = {"filename": file, "subfolder": subfolder, "type": "output", "format": "video/h264-mp4"}
    return None, [nodes.Pending(folder / file, result, content)]


def main() -> int:
    """Add the classes, and be a stand-in."""
    schema = json.loads((ROOT / "workflows/node-schema.json").read_text(encoding="utf-8"))
    for name, entry in schema["nodes"].items():
        if name not in nodes.CLASSES and not name.startswith("Empty"):
            inputs = {key: _input(spec) for key, spec in entry["inputs"].get("required", {}).items()}
            made = nodes.NodeClass(
                name, "", "nodes", inputs, tuple(entry["outputs"]), entry.get("output_node", False) or "Combine" in name
            )
            nodes.CLASSES[name] = made  # type: ignore[index]
            nodes.MORE[name] = _value
    nodes.MORE |= {"LoadImage": _file("image"), "VHS_LoadVideo": _file("video"), "VHS_VideoCombine": _film}
    return server.start(sys.argv)


if __name__ == "__main__":
    sys.exit(main())
