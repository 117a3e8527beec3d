"""Starts InfCam's script in ComfyUI's Python: replaces two unused packages it imports, and feeds UniDepth in slices.

It does not import hearmeman, which ComfyUI's Python does not have: `python infcam_runner.py CODE ARGUMENT…`.
"""

from __future__ import annotations

import importlib
import importlib.util
import runpy
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

SLICE = 8
"""Frames that UniDepth gets at once: all 81 take 48 GB, by its authors' figures."""


def stand_in(name: str, **attributes: Any) -> None:
    """Provide a module for imports, unless the real one is installed."""
    if importlib.util.find_spec(name) is None:
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__dict__.update(attributes)
        sys.modules[name] = module


def no_download(name: str = "", *more: Any, **named: Any) -> None:
    """Stands in for modelscope's download: the files are already on the disk.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(f"InfCam wants to download {name}, which `hearmeman models fetch infcam` should have fetched")


def nothing(*given: Any, **named: Any) -> None:
    """Stands in for wandb's log."""


def in_slices(infer: Any) -> Any:
    """UniDepth's `infer` for some frames at a time; the script uses nothing of it but the lens, which is per frame."""

    def sliced(self: Any, rgb: Any, camera: Any = None, normalize: bool = True) -> dict[str, Any]:
        frames = rgb if rgb.ndim == 4 else rgb.unsqueeze(0)
        parts = [infer(self, frames[at : at + SLICE], camera, normalize) for at in range(0, len(frames), SLICE)]
        return {"intrinsics": importlib.import_module("torch").cat([part["intrinsics"] for part in parts])}

    return sliced


def main(argv: list[str]) -> None:
    """Run the script the way its authors do."""
    code = argv[1]
    sys.path.insert(0, code)
    stand_in("modelscope", snapshot_download=no_download)
    stand_in("wandb", log=nothing, Image=nothing)
    if "--k_from_unidepth" in argv:
        depth = importlib.import_module("unidepth.models").UniDepthV2
        depth.infer = in_slices(depth.infer)
    sys.argv = [f"{code}/inference_infcam.py", *argv[2:]]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv)
