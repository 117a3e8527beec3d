"""FlashPortrait in WanVideoWrapper: adds what its transformer was trained with and the wrapper's FantasyPortrait lacks."""

from __future__ import annotations

import copy
import sys
from typing import Any

import folder_paths
import torch


class FlashPortraitFace:
    """Puts FlashPortrait's own encoder of the face, and its normalised attention, in the place of FantasyPortrait's."""

    CATEGORY = "hearmeman/FlashPortrait"
    DESCRIPTION = (
        "FlashPortrait's transformer expects the face from its own encoder, and brings it to the mean and spread of the "
        "picture. WanVideoWrapper runs it with FantasyPortrait's encoder and without that; this node adds both."
    )
    RETURN_TYPES = ("WANVIDEOMODEL", "FANTASYPORTRAITMODEL")
    RETURN_NAMES = ("model", "portrait_model")
    FUNCTION = "add"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        return {
            "required": {
                "model": ("WANVIDEOMODEL", {"tooltip": "FlashPortrait's transformer, by WanVideo Model Loader"}),
                "portrait_model": ("FANTASYPORTRAITMODEL", {"tooltip": "FantasyPortrait, which looks at the face"}),
                "encoder": (folder_paths.get_filename_list("diffusion_models"), {"tooltip": "its portrait_encoder.pt"}),
            }
        }

    def add(self, model: Any, portrait_model: dict[str, Any], encoder: str) -> tuple[Any, dict[str, Any]]:
        """The model itself, changed, and a copy of the portrait model.

        Raises:
            ValueError: the model takes no face, or the file is no encoder of FlashPortrait's.
        """
        blocks = model.model.diffusion_model.blocks
        if not hasattr(blocks[0].cross_attn, "ip_adapter_single_stream_k_proj"):
            raise ValueError("the model takes no face: choose FlashPortrait's transformer in WanVideo Model Loader")
        path = folder_paths.get_full_path_or_raise("diffusion_models", encoder)
        weights = torch.load(path, map_location="cpu", weights_only=True)
        own = copy.deepcopy(portrait_model["proj_model"])
        missing = sorted(set(own.state_dict()) - set(weights))
        if missing:
            raise ValueError(
                f"{encoder} lacks {len(missing)} weights, such as {missing[0]}: FlashPortrait's portrait_encoder.pt is "
                "wanted, which `hearmeman models fetch flashportrait-wrapper` brings"
            )
        own.load_state_dict({name: weights[name] for name in own.state_dict()})
        for block in blocks:
            normalise(block.cross_attn)
        return (model, {**portrait_model, "proj_model": own})


def normalise(attention: Any) -> None:
    """Have a cross-attention bring what it takes from the face to the mean and spread of what it takes from the rest.

    The face goes in before the last layer, as FlashPortrait's code does it: arXiv 2512.16900, WanI2VCrossAttention.
    """
    plain = type(attention).forward
    attend = sys.modules[plain.__module__].attention

    def forward(
        x: torch.Tensor,
        context: torch.Tensor,
        *more: Any,
        adapter_proj: torch.Tensor | None = None,
        ip_scale: float = 1.0,
        num_latent_frames: int = 21,
        **named: Any,
    ) -> torch.Tensor:
        named["num_latent_frames"] = num_latent_frames
        if adapter_proj is None:
            return plain(attention, x, context, *more, **named)

        def add_face(layer: torch.nn.Module, given: tuple[torch.Tensor]) -> torch.Tensor:
            seen = given[0]
            shape = (len(x) * num_latent_frames, -1, attention.num_heads, attention.head_dim)
            query = attention.norm_q(attention.q(x).to(attention.norm_q.weight.dtype)).to(x.dtype).view(shape)
            key = attention.ip_adapter_single_stream_k_proj(adapter_proj).view(shape)
            value = attention.ip_adapter_single_stream_v_proj(adapter_proj).view(shape)
            mode, heads = attention.attention_mode, attention.num_heads
            face = attend(query, key, value, attention_mode=mode, heads=heads).reshape(seen.shape)
            mean, spread = _measured(seen)
            face_mean, face_spread = _measured(face)
            face = (face.float() - face_mean) * (spread / (face_spread + 1e-5)) + mean
            return seen + face.to(seen.dtype) * ip_scale

        with attention.o.register_forward_pre_hook(add_face):
            return plain(attention, x, context, *more, **named)

    attention.forward = forward


def _measured(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each sample of [batch, tokens, width]."""
    spread, mean = torch.std_mean(tokens.float(), dim=(1, 2), keepdim=True)
    return mean, spread
