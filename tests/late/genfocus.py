"""Genfocus' nodes run on a small FLUX with random weights, and make what upstream's own loop makes."""

import json
import sys
import tempfile
from pathlib import Path

sys.argv = ["genfocus", "--cpu"]
sys.path[:0] = ["/opt/comfyui", "/opt/comfyui-nodes"]
models = Path(tempfile.mkdtemp())

import comfy.options

comfy.options.enable_args_parsing()
import folder_paths

folder_paths.models_dir = str(models)

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from Genfocus.pipeline.flux import Condition, generate
from hearmeman.genfocus_nodes import AllInFocus, GenfocusModel, Refocus
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from hearmeman import genfocus_flux

torch.manual_seed(1)
torch.set_num_threads(2)


def clip_tokenizer() -> CLIPTokenizer:
    """One with hardly any words."""
    words = ["<|startoftext|>", "<|endoftext|>", "a", "a</w>"]
    (models / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (models / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(models / "vocab.json"), str(models / "merges.txt"), model_max_length=77)


def small_flux() -> FluxPipeline:
    """FLUX's classes at a thousandth of their size."""
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("a", -1.0)]
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(4, 4, 8, 8),
            norm_num_groups=2,
            layers_per_block=1,
            latent_channels=4,
            use_quant_conv=False,
            use_post_quant_conv=False,
            shift_factor=0.1,
            scaling_factor=0.36,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=4,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                bos_token_id=0,
                eos_token_id=1,
            )
        ),
        tokenizer=clip_tokenizer(),
        text_encoder_2=T5EncoderModel(
            T5Config(
                vocab_size=4, d_model=24, d_kv=8, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
            )
        ),
        tokenizer_2=T5TokenizerFast(tokenizer_object=Tokenizer(Unigram(words, unk_id=2)), extra_ids=0),
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            pooled_projection_dim=16,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),
        ),
    )


def write_lora(pipeline: FluxPipeline, name: str) -> None:
    """A LoRA whose effect is seen."""
    targets = ["x_embedder", "to_q", "to_k", "to_v", "to_out.0", "proj_mlp", "proj_out", "norm1.linear", "norm.linear"]
    pipeline.transformer.add_adapter(
        LoraConfig(r=4, lora_alpha=4, init_lora_weights=False, target_modules=targets), name
    )
    layers = get_peft_model_state_dict(pipeline.transformer, adapter_name=name)
    FluxPipeline.save_lora_weights(
        models / "genfocus", transformer_lora_layers=layers, weight_name=f"{name}.safetensors"
    )
    pipeline.transformer.delete_adapters(name)


def upstream(genfocus, adapter: str, conditions, size: tuple[int, int], guidance: float) -> torch.Tensor:
    """The same picture by upstream's loop: one seed, and no chance in what the VAE encodes."""
    height, width = size
    noise = torch.randn(1, height * width // 256, 16, generator=torch.Generator().manual_seed(7))
    genfocus.pipeline.set_adapters([adapter])
    prompt = genfocus_flux.PROMPTS[adapter]
    made = generate(
        genfocus.pipeline,
        prompt=prompt,
        height=height,
        width=width,
        num_inference_steps=2,
        conditions=conditions,
        guidance_scale=guidance,
        latents=noise,
        output_type="pt",
    )
    return made.images.movedim(1, -1)


flux = small_flux()
flux.save_pretrained(models / "diffusers/FLUX.1-dev")
write_lora(flux, "deblurNet")
write_lora(flux, "bokehNet")
DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mean

listed = GenfocusModel.INPUT_TYPES()["required"]
assert listed["flux"][0] == ["FLUX.1-dev"], listed
assert listed["deblur"][0] == ["bokehNet.safetensors", "deblurNet.safetensors"], listed
[genfocus] = GenfocusModel().load("FLUX.1-dev", "deblurNet.safetensors", "bokehNet.safetensors", "auto")
[streamed] = GenfocusModel().load("FLUX.1-dev", "deblurNet.safetensors", "bokehNet.safetensors", "sequential")
assert genfocus.transformer is not None and streamed.transformer is None

photo = torch.rand(1, 96, 128, 3)
[sharp] = AllInFocus().run(genfocus, photo, 0, 2, 7)
wanted = upstream(genfocus, "deblurring", [Condition(photo.movedim(-1, 1), "deblurring", [0, 0], 1.0)], (96, 128), 3.5)
assert sharp.shape == (1, 96, 128, 3)
assert torch.allclose(sharp, wanted, atol=1e-4), (sharp - wanted).abs().max()

# Two tiles: upstream's loop at our commit takes two conditions there, which are bokeh's.
photo, depth = torch.rand(1, 528, 512, 3), torch.linspace(0, 1, 512)[None, None, :, None].expand(1, 528, 512, 3)
blurred, blur = Refocus().run(genfocus, photo, depth, 15.0, 0.0, 0.5, 0, 2, 7)
assert float(blur[0, 5, 0, 0]) == 0.0 and abs(float(blur[0, 5, -1, 0]) - 0.15) < 1e-3
conditions = [
    Condition(photo.movedim(-1, 1), "bokeh"),
    Condition(blur.movedim(-1, 1), "bokeh", [0, 0], 1.0, No_preprocess=True),
]
wanted = upstream(genfocus, "bokeh", conditions, (528, 512), 1.0)
assert torch.allclose(blurred, wanted, atol=1e-4), (blurred - wanted).abs().max()
again, _ = Refocus().run(streamed, photo, depth, 15.0, 0.0, 0.5, 0, 2, 7)
assert torch.allclose(again, blurred, atol=1e-4), (again - blurred).abs().max()

shown = torch.zeros(1, 528, 512)
shown[..., 400:] = 1
other, blur = Refocus().run(genfocus, photo, depth, 15.0, 0.0, 0.5, 256, 1, 7, shown)
assert other.shape == blur.shape == (1, 256, 240, 3), other.shape
assert float(blur[0, 5, 0, 0]) > float(blur[0, 5, 214, 0])
try:
    Refocus().run(genfocus, photo, depth, 15.0, 0.0, 0.5, 256, 1, 7, torch.zeros(1, 528, 512))
except ValueError as error:
    assert "mask shows nothing" in str(error)
else:
    raise AssertionError("an empty mask was taken")
# Before the interpreter takes ComfyUI's modules apart.
del genfocus, streamed
print("genfocus", tuple(sharp.shape), tuple(blurred.shape))
