"""StoryMem's graph makes a shot of every kind with small random weights, and what is remembered changes what it makes."""

from itertools import combinations

import late_graph as late
import torch


def lora(rank=4):
    """A LoRA under the names of StoryMem's files, as PEFT's rank-stabilised ones have them."""
    sizes = {f"{attention}.{part}": (96, 96) for attention in ("self_attn", "cross_attn") for part in "qkvo"}
    weights = {}
    for block in range(30):
        for part, (rows, columns) in (sizes | {"ffn.0": (64, 96), "ffn.2": (96, 64)}).items():
            name = f"base_model.model.blocks.{block}.{part}"
            weights[f"{name}.lora_A.weight"] = torch.randn(rank, columns) / 10
            weights[f"{name}.lora_B.weight"] = torch.randn(rows, rank) / 10
    return weights


late.load("ComfyUI-WanVideoWrapper", "ComfyUI-KJNodes", "ComfyUI-VideoHelperSuite")
for expert in ("high", "low"):
    late.keep(f"diffusion_models/wan2.2_i2v_{expert}_noise_14B_fp8_scaled.safetensors", late.in_fp8(late.wan(36)))
    late.keep(f"diffusion_models/wan2.2_t2v_{expert}_noise_14B_fp8_scaled.safetensors", late.in_fp8(late.wan(16)))
    for kind in ("mi2v", "mm2v"):
        late.keep(f"loras/storymem/{kind}_{expert}.safetensors", lora())
late.keep_vae("vae/Wan2_1_VAE_bf16.safetensors")
late.keep_inputs(late.moving(12))


def shot(kind, **changes):
    """The latents of one small shot after four steps, two of each expert, and the first expert."""
    made = late.graph(
        "storymem", shot=kind, **late.SMALL, frames=late.FRAMES, steps=4, handover=2, blocks=20, **changes
    )
    late.keep_words(made)
    samples, images, model = late.run(made, "sampler_low", "decode", "model_high")
    late.is_film(samples, images)
    return samples, model


torch.manual_seed(2)
shots = {kind: shot(kind)[0] for kind in ("text", "image", "cut", "same", "motion")}
for kind, other in combinations(shots, 2):
    assert late.apart(shots[kind], shots[other]) > 0.01, (kind, other)

cut, model = shot("cut")
assert late.apart(cut, shots["cut"]) == 0, "the same seed made another shot"
# Rank-stabilised: upstream multiplies by the root of the rank, which a plain LoRA's alpha has to say.
[(_, patch, *_)] = model.patches["diffusion_model.blocks.0.self_attn.q.weight"]
up, down, alpha = patch.weights[:3]
assert alpha / down.shape[0] == 2, (up.shape, alpha)
assert model.model.diffusion_model.blocks[0].self_attn.q.weight.dtype == torch.float8_e4m3fn
changed = {
    "other frames": shot("cut", skip=6)[0],
    "their order in time": shot("cut", story__rope_negative_offset_frames=1)[0],
    "no LoRA": shot("cut", strength=0.0)[0],
}
for what, samples in changed.items():
    assert late.apart(cut, samples) > 0.001, what
print("storymem", {what: round(late.apart(cut, samples), 3) for what, samples in changed.items()})
