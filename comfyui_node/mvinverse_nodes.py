"""MVInverse: pictures of one scene to its albedo, metallic, roughness, normals and shading, by upstream's package."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

from . import memory, sizes

BYTES_A_PIXEL = 2048
"""Working memory for each pixel of each view. A public demo runs 16 views of up to 1024 pixels on a card of 32 GB."""


class MVInverseModel:
    """Loads the weights from models/mvinverse."""

    CATEGORY = "hearmeman/MVInverse"
    DESCRIPTION = "Loads MVInverse from a folder in models/mvinverse; ENABLE_MVINVERSE fetches it."
    RETURN_TYPES = ("MVINVERSE",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        return {"required": {"model": (memory.entries("mvinverse"),)}}

    def load(self, model: str) -> tuple[Any]:
        """The model, lent to ComfyUI's memory management.

        Raises:
            ValueError: the folder is not there, or its file lacks weights.
        """
        from mvinverse.models.mvinverse import MVInverse
        from safetensors import safe_open

        folder = memory.found("mvinverse", model, "model.safetensors")
        made = MVInverse.from_pretrained(str(folder), local_files_only=True).eval()
        # What from_pretrained does not find it leaves at random, and says nothing.
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            missing = sorted({name for name, _ in made.named_parameters()} - set(file.keys()))
        if missing:
            raise ValueError(
                f"{folder}/model.safetensors lacks {len(missing)} of MVInverse's weights, such as {missing[0]}: it is "
                "of another version or damaged; `hearmeman models fetch mvinverse` brings the right one"
            )
        return (memory.lend(mvinverse=made),)


class MVInverseMaps:
    """Runs the model on all pictures of a batch at once, since they are of one scene."""

    CATEGORY = "hearmeman/MVInverse"
    DESCRIPTION = (
        "Takes pictures of one scene, or frames of a video of it, and gives for each what it is made of and how it is "
        "lit. They are seen together, so more views agree better and take more memory."
    )
    RETURN_TYPES = ("IMAGE",) * 5
    RETURN_NAMES = ("albedo", "metallic", "roughness", "normal", "shading")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        return {
            "required": {
                "model": ("MVINVERSE",),
                "images": ("IMAGE", {"tooltip": "Pictures of one scene, all of one size."}),
                "longest_side": (
                    "INT",
                    {"default": 1024, "min": 112, "max": 2048, "tooltip": "A larger picture is made smaller."},
                ),
            }
        }

    def run(self, model: Any, images: torch.Tensor, longest_side: int) -> tuple[torch.Tensor, ...]:
        """`images` [views, height, width, 3] in 0 to 1; each answer has that form, with sides that are multiples of 14.

        Raises:
            ValueError: the pictures are too narrow.
        """
        views, height, width = images.shape[:3]
        width, height = sizes.whole_patches(width, height, longest_side)
        channels = images[..., :3].movedim(-1, 1)
        small = torch.nn.functional.interpolate(channels, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
        device = memory.bring(model, working=views * height * width * BYTES_A_PIXEL)
        half = torch.autocast("cuda", dtype=torch.float16) if device.type == "cuda" else nullcontext()
        with torch.no_grad(), half:
            made = model.model.mvinverse(small[None].to(device))
        made["normal"] = made["normal"] * 0.5 + 0.5
        maps = [made[name][0].float().cpu().clamp(0, 1) for name in self.RETURN_NAMES]
        return tuple(one.expand(-1, -1, -1, 3).contiguous() for one in maps)
