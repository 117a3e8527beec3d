"""FlashPortrait's own node moves a portrait with small random weights, whole and as fp8."""

import contextlib
import json
import shutil
import sys

import late_graph as late
import torch
from omegaconf import OmegaConf
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from transformers import T5TokenizerFast

late.load("ComfyUI-FlashPortrait", "ComfyUI-VideoHelperSuite")
NODE = f"{late.NODES}/ComfyUI-FlashPortrait"
flash = sys.modules[f"{NODE}.nodes"]
image_encoder = sys.modules[f"{NODE}.wan.models.wan_image_encoder"]

# Upstream fixes these sizes in its code and in a file beside it; nothing else is made smaller than it is.
config = OmegaConf.load(f"{NODE}/config/wan2.1/wan_civitai.yaml")
config.text_encoder_kwargs |= {"vocab": 4, "dim": 32, "dim_attn": 32, "dim_ffn": 32, "num_heads": 2, "num_layers": 1}
flash.OmegaConf = type("Small", (OmegaConf,), {"load": staticmethod(lambda path: config)})
whole = image_encoder.clip_xlm_roberta_vit_h_14
image_encoder.clip_xlm_roberta_vit_h_14 = lambda **rest: whole(
    vision_layers=2, vision_mlp_ratio=1, vocab_size=8, text_layers=1, text_dim=64, text_heads=2, **rest
)
# Its sampler is written for CUDA: these lines choose a device and a precision of one.
torch.cuda.device = lambda device: contextlib.nullcontext()

folder = late.MODELS / "flash_portrait"
wan, own = folder / "Wan2.1-I2V-14B-720P", folder / "FlashPortrait"
own.mkdir(parents=True)
words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("a", -1.0)]
T5TokenizerFast(tokenizer_object=Tokenizer(Unigram(words, unk_id=2)), extra_ids=0).save_pretrained(
    wan / "google/umt5-xxl"
)
sizes = {"model_type": "i2v", "in_dim": 36, "dim": 96, "ffn_dim": 64, "text_dim": 32, "num_heads": 12, "num_layers": 2}
(wan / "config.json").write_text(json.dumps(sizes))


def random(module):
    """Its weights at random; norms and biases stay as they are made."""
    weights = module.state_dict()
    return {
        name: late.spread(weight) if weight.ndim > 1 and "gamma" not in name else weight
        for name, weight in weights.items()
    }


transformer = random(flash.WanTransformer3DModel(**sizes, in_channels=36, hidden_size=96))
late.keep(
    wan.relative_to(late.MODELS) / "diffusion_pytorch_model.safetensors",
    {name: tensor for name, tensor in transformer.items() if "emo_" not in name},
)
torch.save(transformer, own / "transformer.pt")
torch.save(random(flash.AutoencoderKLWan().model), wan / "Wan2.1_VAE.pth")
text = flash.WanT5EncoderModel(**flash.filter_kwargs(flash.WanT5EncoderModel, dict(config.text_encoder_kwargs)))
torch.save(text.state_dict(), wan / "models_t5_umt5-xxl-enc-bf16.pth")
torch.save(flash.CLIPModel().model.state_dict(), wan / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth")
torch.save(flash.PortraitEncoder(adapter_in_dim=768, adapter_proj_dim=2048).state_dict(), own / "portrait_encoder.pt")
torch.save(flash.FanEncoder().state_dict(), own / "pd_fpg.pth")
for name in ("face_det.onnx", "face_landmark.onnx"):
    shutil.copy(f"{late.WRAPPER}/fantasyportrait/models/{name}", own)

late.keep_inputs(late.faces(), rate=25)


def film(memory="full", **changes):
    """The frames of a small film after two steps."""
    # One window holds the whole film.
    windows = {f"{node}__context_size": late.FRAMES for node in ("face", "sampler")}
    windows |= {f"{node}__context_overlap": 2 for node in ("face", "sampler")}
    size = {"video__frame_load_cap": late.FRAMES, "size": 64, "steps": 2, "loader__precision": "fp32"}
    made = late.graph("flashportrait", memory=memory, **size, **windows, **changes)
    [images] = late.run(made, "sampler")
    assert images.shape == (late.FRAMES - 1, 64, 64, 3) and torch.isfinite(images).all(), images.shape
    assert images.std() > 0.01, images.std()
    return images


first = film()
other = float((film(video__skip_first_frames=late.FRAMES) - first).abs().mean())
assert other > 1e-4, other
# sequential_cpu_offload moves weights to and from a GPU, and has no meaning here.
fp8 = float((film("model_cpu_offload") - first).abs().mean())
assert 0 < fp8 < 0.1, fp8
print("flashportrait", round(other, 4), round(fp8, 4))
