"""Genfocus: a picture with everything in focus, and a picture focused anew on a point or on what a mask shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import torch

from . import genfocus_flux, memory, sizes

folder_paths.add_model_folder_path("genfocus", str(Path(folder_paths.models_dir, "genfocus")))

BLUR_LIMIT = 100.0
"""The blur, in pixels, that the model is given as 1."""


class GenfocusModel:
    """Loads FLUX.1-dev and the two LoRAs."""

    CATEGORY = "hearmeman/Genfocus"
    DESCRIPTION = (
        "Loads FLUX.1-dev from models/diffusers and the LoRAs from models/genfocus; ENABLE_GENFOCUS and "
        "MODELS=flux1-dev fetch them."
    )
    RETURN_TYPES = ("GENFOCUS",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        loras = folder_paths.get_filename_list("genfocus")
        return {
            "required": {
                "flux": (memory.entries("diffusers"),),
                "deblur": (loras, {"tooltip": "the LoRA deblurNet of the release of March 2026"}),
                "bokeh": (loras, {"tooltip": "the LoRA bokehNet"}),
                "memory": (
                    [*genfocus_flux.MODES],
                    {
                        "default": "auto",
                        "tooltip": "full: 32 GB of GPU memory. sequential: 12 GB, since its weights "
                        "are moved from RAM for each step. auto: whichever fits.",
                    },
                ),
            }
        }

    def load(self, flux: str, deblur: str, bokeh: str, memory: str) -> tuple[Any]:
        """The pipeline, lent to ComfyUI's memory management.

        Raises:
            ValueError: a file is not there, or is another model's.
        """
        from .memory import found

        loras = {"deblurring": found("genfocus", deblur), "bokeh": found("genfocus", bokeh)}
        return (genfocus_flux.load(found("diffusers", flux, "model_index.json"), loras, memory),)


_RUN = {
    "longest_side": (
        "INT",
        {"default": 1024, "min": 0, "max": 4096, "tooltip": "in pixels; 0 keeps the picture's size"},
    ),
    "steps": ("INT", {"default": 28, "min": 1, "max": 50}),
    "seed": ("INT", {"default": 42, "min": 0, "max": 2**64 - 1}),
}


class AllInFocus:
    """Makes a picture sharp at every depth."""

    CATEGORY = "hearmeman/Genfocus"
    DESCRIPTION = "Makes a blurred photo sharp from front to back, by Genfocus' DeblurNet."
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        return {"required": {"genfocus": ("GENFOCUS",), "image": ("IMAGE",), **_RUN}}

    def run(self, genfocus: Any, image: torch.Tensor, longest_side: int, steps: int, seed: int) -> tuple[torch.Tensor]:
        """`image` [pictures, height, width, 3]; the answer has that form, with sides that are multiples of 16.

        Raises:
            ValueError: the picture is too narrow.
        """
        made = [
            genfocus_flux.make(genfocus, "deblurring", [(_fitted(one, longest_side), True)], steps, seed)
            for one in _pictures(image)
        ]
        return (torch.cat(made).movedim(1, -1),)


class Refocus:
    """Blurs a sharp picture as a wide aperture would."""

    CATEGORY = "hearmeman/Genfocus"
    DESCRIPTION = (
        "Blurs a sharp photo like a lens with a large aperture, by Genfocus' BokehNet: what is as far away as the "
        "point, or as what the mask shows, stays sharp."
    )
    RETURN_TYPES = ("IMAGE", "IMAGE")
    RETURN_NAMES = ("image", "blur")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        side = {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.001}
        return {
            "required": {
                "genfocus": ("GENFOCUS",),
                "image": ("IMAGE", {"tooltip": "a photo that is sharp everywhere"}),
                "depth": ("IMAGE", {"tooltip": "bright is near, as Depth Anything V2 gives it"}),
                "strength": (
                    "FLOAT",
                    {"default": 15.0, "min": 0.0, "max": 100.0, "step": 0.5, "tooltip": "of the blur; upstream's K"},
                ),
                "focus_x": ("FLOAT", {**side, "tooltip": "the point in focus: 0 is the left edge, 1 the right"}),
                "focus_y": ("FLOAT", {**side, "tooltip": "0 is the top, 1 the bottom"}),
                **_RUN,
            },
            "optional": {"mask": ("MASK", {"tooltip": "what should be in focus, instead of the point"})},
        }

    def run(
        self,
        genfocus: Any,
        image: torch.Tensor,
        depth: torch.Tensor,
        strength: float,
        focus_x: float,
        focus_y: float,
        longest_side: int,
        steps: int,
        seed: int,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`image` [pictures, height, width, 3], `depth` of that form in any size, one for all or one for each.

        Returns:
            The pictures, and for each the blur that was asked for: 1 is 100 pixels.

        Raises:
            ValueError: the numbers of pictures do not agree, the mask shows nothing, or the picture is too narrow.
        """
        made, blurs = [], []
        for one, near, shown in zip(
            _pictures(image), _as_many(depth, image, "depth"), _as_many(mask, image, "mask"), strict=True
        ):
            disparity = near[..., :3].mean(-1)
            blur = _blur(disparity, _focus(disparity, focus_x, focus_y, shown), strength)
            fitted = _fitted(one, longest_side)
            blur = _fitted(_resized(blur, one.shape[-2:]), longest_side).expand_as(fitted).clamp(0, 1)
            made.append(genfocus_flux.make(genfocus, "bokeh", [(fitted, True), (blur, False)], steps, seed))
            blurs.append(blur)
        return torch.cat(made).movedim(1, -1), torch.cat(blurs).movedim(1, -1)


def _pictures(image: torch.Tensor) -> list[torch.Tensor]:
    """Each as [1, 3, height, width]."""
    return [*image[..., :3].movedim(-1, 1).split(1)]


def _as_many(given: torch.Tensor | None, image: torch.Tensor, what: str) -> list[torch.Tensor | None]:
    """One of `given` for each picture."""
    if given is None or len(given) == 1:
        return [None if given is None else given[0]] * len(image)
    if len(given) != len(image):
        raise ValueError(f"There are {len(image)} pictures and {len(given)} of {what}: give one {what}, or as many.")
    return [*given]


def _focus(disparity: torch.Tensor, x: float, y: float, mask: torch.Tensor | None) -> torch.Tensor:
    """The disparity that is in focus: at the point, or the median of what the mask shows."""
    height, width = disparity.shape
    if mask is None:
        return disparity[sizes.at_fraction(y, height), sizes.at_fraction(x, width)]
    shown = torch.nn.functional.interpolate(mask[None, None].float(), (height, width), mode="nearest")[0, 0] > 0.5
    if not shown.any():
        raise ValueError("The mask shows nothing: paint what should be in focus white, or focus on a point instead.")
    return disparity[shown.to(disparity.device)].median()


def _blur(disparity: torch.Tensor, focus: torch.Tensor, strength: float) -> torch.Tensor:
    """[1, 1, height, width]: how far from the focus, as the model was taught it."""
    return ((disparity - focus).abs() * strength / BLUR_LIMIT)[None, None]


def _resized(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return torch.nn.functional.interpolate(picture.float(), tuple(size), mode="bilinear", antialias=True)


def _fitted(picture: torch.Tensor, longest: int) -> torch.Tensor:
    """In the size that the model takes, see `sizes.whole_tokens`."""
    height, width = picture.shape[-2:]
    (new_width, new_height), (left, top, right, bottom) = sizes.whole_tokens(width, height, longest)
    if (new_width, new_height) != (width, height):
        picture = torch.nn.functional.interpolate(
            picture.float(), (new_height, new_width), mode="bicubic", antialias=True
        ).clamp(0, 1)
    return picture[..., top:bottom, left:right]
