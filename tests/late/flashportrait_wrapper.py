"""FlashPortrait in WanVideoWrapper moves a portrait with small random weights, by the attention that its authors have."""

import json
from importlib import import_module
from pathlib import Path

import late_graph as late
import torch
from comfy import clip_vision

late.load("ComfyUI-WanVideoWrapper", "ComfyUI-KJNodes", "ComfyUI-VideoHelperSuite")
late.load("ComfyUI-FlashPortrait", "hearmeman")
portrait = import_module(".fantasyportrait.nodes", late.WRAPPER)

weights = late.wan(36, is_wan21_i2v=True)
for block in range(30):
    for part in "kv":
        weights[f"blocks.{block}.cross_attn.emo_{part}_proj.weight"] = torch.randn(96, 2048) / 45
late.keep("diffusion_models/FlashPortrait_transformer.pt", weights)
encoder = portrait.PortraitAdapter(adapter_in_dim=2048, adapter_proj_dim=2048, dtype=torch.float32).state_dict()
seen = {f"pd_fpg.{name}": tensor for name, tensor in portrait.FanEncoder().state_dict().items()}
late.keep(
    "diffusion_models/Wan2_1_FantasyPortrait_fp16.safetensors",
    {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in (encoder | seen).items()},
)
own = portrait.PortraitAdapter(adapter_in_dim=2048, adapter_proj_dim=2048, dtype=torch.float32).state_dict()
late.keep("diffusion_models/FlashPortrait_portrait_encoder.pt", own)
late.keep_vae("vae/Wan2_1_VAE_bf16.safetensors")

# Of the picture's encoder, which ComfyUI builds at its full size, 2 layers of 32 are enough.
full = clip_vision.ClipVisionModel
clip_vision.ClipVisionModel = lambda path: full(json.loads(Path(path).read_text()) | {"num_hidden_layers": 2})
sizes = Path(clip_vision.__file__).with_name("clip_vision_config_h.json")
small = clip_vision.ClipVisionModel(sizes).get_sd()
small = {name: torch.randn(tensor.shape) / 30 for name, tensor in small.items()}
late.keep(
    "clip_vision/clip_vision_h.safetensors",
    small | {"vision_model.encoder.layers.30.layer_norm1.weight": torch.ones(1)},
)

late.keep_inputs(late.faces(), rate=25)


def film(**changes):
    """The latents of a small film after two steps."""
    small = late.SMALL | {"frames": late.FRAMES, "steps": 2, "face__device": "cpu"}
    made = late.graph("flashportrait-wrapper", **small, blocks=20, **changes)
    late.keep_words(made)
    samples, images = late.run(made, "sampler", "decode")
    late.is_film(samples, images)
    return samples


first = film()
other = late.apart(first, film(video__skip_first_frames=late.FRAMES))
weaker = late.apart(first, film(strength=0.5))
assert other > 1e-3 and weaker > 1e-3, (other, weaker)

# One cross-attention with the same weights, by the authors' code and by the wrapper's with our node's change.
authors = import_module(".wan.models.wan_transformer3d", f"{late.NODES}/ComfyUI-FlashPortrait").WanI2VCrossAttention(
    96, 12
)
ours = import_module(".wanvideo.modules.model", late.WRAPPER).WanI2VCrossAttention(96, 96, 12)
start = "blocks.0.cross_attn."
part = {name.removeprefix(start): weight for name, weight in weights.items() if name.startswith(start)}
authors.load_state_dict(part)
for letter in "kv":
    setattr(ours, f"ip_adapter_single_stream_{letter}_proj", torch.nn.Linear(2048, 96, bias=False))
ours.load_state_dict({name.replace("emo_", "ip_adapter_single_stream_"): tensor for name, tensor in part.items()})
import_module(".flashportrait_nodes", f"{late.NODES}/hearmeman").normalise(ours)
tokens, words, picture, face = (
    torch.randn(shape) for shape in ((1, 36, 96), (1, 7, 96), (1, 257, 96), (1, 3, 5, 2048))
)
with torch.inference_mode():
    wanted = authors(tokens, torch.cat([picture, words], 1), None, torch.float32, emo_proj=face, latents_num_frames=3)
    made = ours(tokens, words, clip_embed=picture, adapter_proj=face, num_latent_frames=3)
    without = ours(tokens, words, clip_embed=picture, num_latent_frames=3)
assert torch.allclose(made, wanted, atol=1e-5), (made - wanted).abs().max()
assert not torch.allclose(without, wanted, atol=1e-2)
print("flashportrait-wrapper", round(other, 4), round(weaker, 4), float((made - wanted).abs().max()))
