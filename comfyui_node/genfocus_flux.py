"""Genfocus on FLUX.1-dev: the loaded pipeline, and one picture from its conditions, by upstream's transformer_forward.

Upstream's own loop keeps everything on the GPU, takes one tile at a time and cannot be stopped; what it computes is the
same. Its sizes, prompts, guidance and tiles are those of its release of March 2026 (Genfocus/pipeline/flux.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.model_management as management
import comfy.utils
import torch

from . import memory, sizes

ADAPTERS = ("deblurring", "bokeh")
"""Names of the LoRAs; a LoRA acts on the conditions alone, not on the text and the picture that is made."""
PROMPTS = {
    "deblurring": "a sharp photo with everything in focus",
    "bokeh": "an excellent photo with a large aperture",
}
GUIDANCE = {"deblurring": 3.5, "bokeh": 1.0}
_GIB = 2**30
TILE_BYTES = _GIB
"""Working memory of one tile with two conditions, rounded up."""
TILES_AT_ONCE = 8
"""Where the weights come from host memory for each step, this many tiles share the way."""
VAE_BYTES_A_PIXEL = 5000
"""Working memory of the VAE for each pixel: what ComfyUI reckons for FLUX's at two bytes a value."""
MODES = ("auto", "full", "sequential")


@dataclass
class Genfocus:
    """FLUX.1-dev with both LoRAs, in parts that ComfyUI may put away one by one."""

    pipeline: Any
    """diffusers' FluxPipeline."""
    text: Any
    """Both text encoders, lent to ComfyUI."""
    transformer: Any
    """The transformer, lent to ComfyUI; None where its weights come from host memory layer by layer."""
    vae: Any
    """The VAE, lent to ComfyUI."""
    prompts: dict[str, tuple[torch.Tensor, ...]] = field(default_factory=dict)
    """Adapter -> its prompt, encoded once: embeddings, pooled embeddings, positions."""


def load(flux: Path, loras: dict[str, Path], mode: str) -> Genfocus:
    """Load FLUX.1-dev in diffusers' layout from `flux`, and the LoRA of each adapter.

    Raises:
        ValueError: another pipeline lies there, a LoRA has no weights for FLUX's transformer, or weights are missing.
    """
    from accelerate import cpu_offload
    from diffusers import FluxPipeline

    kind = json.loads((flux / "model_index.json").read_text(encoding="utf-8")).get("_class_name")
    if kind != "FluxPipeline":
        raise ValueError(f"{flux} holds a {kind}, and Genfocus works on FLUX.1-dev: choose that folder")
    device = management.get_torch_device()
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    pipeline = FluxPipeline.from_pretrained(flux, torch_dtype=dtype, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    for adapter, path in loras.items():
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=adapter, local_files_only=True)
        if adapter not in getattr(pipeline.transformer, "peft_config", {}):
            raise ValueError(
                f"{path} holds no LoRA for FLUX's transformer: it is another model's file or damaged; "
                "`hearmeman models fetch genfocus` brings the right one"
            )
    transformer = pipeline.transformer.eval().requires_grad_(False)
    # What a file lacks diffusers leaves without a value, and says nothing that stops.
    missing = sorted(name for name, weight in transformer.named_parameters() if weight.is_meta)
    if missing:
        raise ValueError(
            f"{flux} and the LoRAs lack {len(missing)} of the transformer's weights, such as {missing[0]}: a file is "
            "damaged or of another version; `hearmeman models verify` says which"
        )
    if _whole(transformer, mode, device):
        lent = memory.lend(transformer=transformer)
    else:
        lent = None
        cpu_offload(transformer, execution_device=device)
    text = memory.lend(clip=pipeline.text_encoder, t5=pipeline.text_encoder_2)
    return Genfocus(pipeline, text, lent, memory.lend(vae=pipeline.vae))


def _whole(transformer: torch.nn.Module, mode: str, device: torch.device) -> bool:
    """Whether the transformer is on the device as a whole."""
    if mode != "auto" or device.type == "cpu":
        return mode != "sequential"
    needed = management.module_size(transformer) * 1.1 + 4 * _GIB
    return bool(management.get_total_memory(device) >= needed)


def make(
    genfocus: Genfocus, adapter: str, conditions: list[tuple[torch.Tensor, bool]], steps: int, seed: int
) -> torch.Tensor:
    """One picture [1, 3, height, width] in 0 to 1.

    `conditions` are pictures of that form and size, and whether their values are brought to -1 to 1 first; sides are
    multiples of 16. Noise is drawn on the CPU, so that a seed means the same on every GPU.
    """
    height, width = conditions[0][0].shape[-2:]
    genfocus.pipeline.set_adapters([adapter])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        prompt = _prompt(genfocus, adapter)
        device = memory.bring(genfocus.vae, working=height * width * VAE_BYTES_A_PIXEL)
        tokens = [_encoded(genfocus.pipeline, picture, signed, generator) for picture, signed in conditions]
        latents = _denoised(genfocus, adapter, tokens, prompt, (height, width), steps, generator)
        memory.bring(genfocus.vae, working=height * width * VAE_BYTES_A_PIXEL)
        return _decoded(genfocus.pipeline, latents.to(device), height, width)


def _prompt(genfocus: Genfocus, adapter: str) -> tuple[torch.Tensor, ...]:
    if adapter not in genfocus.prompts:
        device = memory.bring(genfocus.text, working=_GIB)
        genfocus.prompts[adapter] = genfocus.pipeline.encode_prompt(PROMPTS[adapter], None, device=device)
    return genfocus.prompts[adapter]


def _encoded(pipeline: Any, picture: torch.Tensor, signed: bool, generator: torch.Generator) -> torch.Tensor:
    """A condition's tokens [1, tokens, channels]."""
    vae = pipeline.vae
    values = picture * 2 - 1 if signed else picture
    latents = vae.encode(values.to(management.get_torch_device(), vae.dtype)).latent_dist.sample(generator)
    latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    return pipeline._pack_latents(latents, *latents.shape)


def _decoded(pipeline: Any, tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    vae = pipeline.vae
    latents = pipeline._unpack_latents(tokens, height, width, pipeline.vae_scale_factor)
    made = vae.decode((latents / vae.config.scaling_factor) + vae.config.shift_factor, return_dict=False)[0]
    return (made.float() * 0.5 + 0.5).clamp(0, 1).cpu()


def _denoised(
    genfocus: Genfocus,
    adapter: str,
    conditions: list[torch.Tensor],
    prompt: tuple[torch.Tensor, ...],
    size: tuple[int, int],
    steps: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """The picture's tokens after all steps."""
    rows, columns = size[0] // sizes.TOKEN, size[1] // sizes.TOKEN
    parts = sizes.tiles(rows, columns)
    at_once = 1 if genfocus.transformer else TILES_AT_ONCE
    working = TILE_BYTES * max(at_once, rows * columns // sizes.TILE**2 if not parts else 1)
    if genfocus.transformer:
        device = memory.bring(genfocus.transformer, working=working)
    else:
        device = management.get_torch_device()
        management.free_memory(working + 2 * _GIB, device)
    pipeline = genfocus.pipeline
    noise = torch.randn(conditions[0].shape, generator=generator)
    latents = noise.to(device, conditions[0].dtype)
    # A tile has the positions of a picture of 512x512, wherever it lies: what Genfocus was trained on.
    shape = (sizes.TILE, sizes.TILE) if parts else (rows, columns)
    ids = pipeline._prepare_latent_image_ids(1, *shape, device, latents.dtype)
    batches = [torch.tensor(parts[first : first + at_once]) for first in range(0, len(parts), at_once)]
    weights = _weights(latents)
    progress = comfy.utils.ProgressBar(steps)
    for time in _times(pipeline.scheduler, steps, latents, device):
        management.throw_exception_if_processing_interrupted()
        if not parts:
            predicted = _predicted(genfocus, adapter, latents, conditions, prompt, ids, time)
        else:
            total, weight = torch.zeros_like(latents), torch.zeros_like(latents[..., :1])
            for batch in batches:
                management.throw_exception_if_processing_interrupted()
                inside = [one[0][batch] for one in conditions]
                made = _predicted(genfocus, adapter, latents[0][batch], inside, prompt, ids, time)
                for tokens, tile in zip(batch, made, strict=True):
                    total[0, tokens] += tile * weights
                    weight[0, tokens] += weights
            predicted = total / weight
        latents = pipeline.scheduler.step(predicted, time, latents, return_dict=False)[0]
        progress.update(1)
    return latents


def _weights(latents: torch.Tensor) -> torch.Tensor:
    """How much each token of a tile [tokens, 1] counts where tiles overlap: most in the middle."""
    line = torch.exp(-(torch.linspace(-2, 2, sizes.TILE, dtype=latents.dtype, device=latents.device) ** 2))
    return (line[:, None] * line[None]).flatten()[:, None]


def _times(scheduler: Any, steps: int, latents: torch.Tensor, device: torch.device) -> Any:
    """FLUX's timesteps for a picture of so many tokens."""
    import numpy
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps

    config = scheduler.config
    shift = calculate_shift(
        latents.shape[1], config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    )
    sigmas = numpy.linspace(1.0, 1 / steps, steps)
    return retrieve_timesteps(scheduler, steps, device, None, sigmas, mu=shift)[0]


def _predicted(
    genfocus: Genfocus,
    adapter: str,
    latents: torch.Tensor,
    conditions: list[torch.Tensor],
    prompt: tuple[torch.Tensor, ...],
    ids: torch.Tensor,
    time: torch.Tensor,
) -> torch.Tensor:
    """The transformer's answer [pictures, tokens, channels]; text, picture and conditions are a branch each."""
    from Genfocus.pipeline.flux import transformer_forward

    embeddings, pooled, text_ids = (each.to(latents.device) for each in prompt)
    count, transformer = len(conditions), genfocus.pipeline.transformer
    now, start = time.expand(1).to(latents.dtype) / 1000, torch.zeros(1, device=latents.device)
    guided = transformer.config.guidance_embeds
    guidance = torch.tensor([GUIDANCE[adapter]], device=latents.device) if guided else None
    # Conditions see the text and the picture, and not each other.
    seen = torch.ones([count + 2, count + 2], dtype=torch.bool)
    seen[2:, 2:] = torch.eye(count, dtype=torch.bool)
    return transformer_forward(
        transformer,
        image_features=[latents, *conditions],
        text_features=[embeddings.expand(len(latents), -1, -1)],
        img_ids=[ids] * (count + 1),
        txt_ids=[text_ids],
        timesteps=[now, now] + [start] * count,
        pooled_projections=[pooled] * (count + 2),
        guidances=[guidance] * 2 + [torch.ones_like(start) if guided else None] * count,
        adapters=[None, None] + [adapter] * count,
        group_mask=seen,
    )[0]
