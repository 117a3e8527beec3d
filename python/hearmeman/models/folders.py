"""Which folders of the models folder someone looks into."""

from __future__ import annotations

COMFYUI_FOLDERS = frozenset(
    [
        "audio_encoders",
        "background_removal",
        "checkpoints",
        "classifiers",
        "clip",
        "clip_vision",
        "configs",
        "controlnet",
        "detection",
        "diffusers",
        "diffusion_models",
        "embeddings",
        "frame_interpolation",
        "geometry_estimation",
        "gligen",
        "hypernetworks",
        "latent_upscale_models",
        "loras",
        "model_patches",
        "optical_flow",
        "photomaker",
        "style_models",
        "t2i_adapter",
        "text_encoders",
        "unet",
        "upscale_models",
        "vae",
        "vae_approx",
    ]
)
"""Folders that the pinned ComfyUI looks into by itself."""
