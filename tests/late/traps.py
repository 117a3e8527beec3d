"""The comfyui environment's known traps: one cv2, one CUDA, one nvidia package, the base seen, the interpreter's own."""

import importlib.metadata
import sys
from pathlib import Path

import cv2

providers = [
    d.metadata["Name"] for d in importlib.metadata.distributions() if "cv2" in (d.read_text("top_level.txt") or "")
]
assert set(providers) <= {"opencv-contrib-python-headless"}, providers
files = importlib.metadata.packages_distributions().get("cv2", [])
assert set(files) == {"opencv-contrib-python-headless"}, files
assert hasattr(cv2, "ximgproc"), "the contrib modules are missing"

import torch

assert torch.version.cuda.startswith("12."), torch.version.cuda
import onnxruntime

provider = Path(onnxruntime.__file__).parent / "capi/libonnxruntime_providers_cuda.so"
assert b"libcublas.so.12" in provider.read_bytes(), "onnxruntime links another CUDA than torch"

import nvidia

assert [Path(p).parts[3] for p in nvidia.__path__] == ["base"], list(nvidia.__path__)
assert Path(torch.__file__).is_relative_to("/opt/env/base"), torch.__file__
assert sys.prefix == "/opt/env/comfyui", sys.prefix
import pkg_resources

assert pkg_resources
for name in ("transformers", "numpy", "huggingface_hub", "ipykernel", "pip"):
    print(name, importlib.metadata.version(name))
