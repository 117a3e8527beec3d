"""Lends modules that are not ComfyUI's own to its memory management, which puts them away when others need the room."""

from __future__ import annotations

from pathlib import Path

import comfy.model_management as management
import comfy.model_patcher
import folder_paths
import torch


class Lent(torch.nn.Module):
    """Holds foreign modules: ComfyUI writes attributes onto what it manages, and diffusers' models refuse some."""

    def __init__(self, **parts: torch.nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def lend(**parts: torch.nn.Module) -> comfy.model_patcher.ModelPatcher:
    """Modules that come and go together. Whoever drops the answer gives their memory back."""
    return comfy.model_patcher.ModelPatcher(
        Lent(**parts), load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
    )


def bring(*lent: comfy.model_patcher.ModelPatcher, working: int) -> torch.device:
    """Have them whole on the device, with `working` bytes free beside them; what else was there makes room."""
    management.load_models_gpu([*lent], memory_required=working, force_full_load=True)
    return management.get_torch_device()


def folders(kind: str, marker: str) -> list[str]:
    """Folders in models/`kind` that hold a file `marker`."""
    return sorted(path.parent.name for path in Path(folder_paths.models_dir, kind).glob(f"*/{marker}"))


def found(kind: str, name: str) -> Path:
    """A folder or file in models/`kind`.

    Raises:
        ValueError: it is not there.
    """
    path = Path(folder_paths.models_dir, kind, name)
    if not path.exists():
        raise ValueError(f"{path} is not there: fetch it with `hearmeman models fetch`, or choose another")
    return path
