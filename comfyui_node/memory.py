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


def entries(kind: str) -> list[str]:
    """What lies in models/`kind`, by name."""
    folder = Path(folder_paths.models_dir, kind)
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


def found(kind: str, name: str, within: str = "") -> Path:
    """A folder or file in models/`kind`, which must hold `within` if that is given.

    Raises:
        ValueError: it is not there.
    """
    path = Path(folder_paths.models_dir, kind, name)
    if not (path / within).exists():
        raise ValueError(
            f"{path / within} is not there: choose what holds it, or fetch the model with `hearmeman models fetch`"
        )
    return path
