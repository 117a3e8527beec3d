"""What the scripts of whole graphs share: small random weights under the models' names, and ComfyUI's own executor."""

import asyncio
import json
import logging
import sys
import tempfile
import tomllib
from importlib import import_module
from pathlib import Path

HOME = Path(tempfile.mkdtemp())
"""What ComfyUI takes for its own folder: models, input and output lie there."""
MODELS = HOME / "models"
WORKFLOWS = Path("/opt/hearmeman/workflows")
NODES = "/opt/comfyui-nodes"
WRAPPER = f"{NODES}/ComfyUI-WanVideoWrapper"
WIDTH, HEIGHT, FRAMES = 80, 64, 5
SMALL = {"width": WIDTH, "height": HEIGHT, "vae__precision": "fp32"}
"""As for `graph`: a VAE in bf16 takes a CPU ten times as long."""

sys.argv = ["graph", "--cpu", "--cache-classic", "--base-directory", str(HOME)]
sys.path.insert(0, "/opt/comfyui")
for name in ("input", "output", "temp", "user"):
    (HOME / name).mkdir()

import comfy.options

comfy.options.enable_args_parsing()
import av
import execution
import numpy as np
import server
import torch
from PIL import Image
from safetensors.torch import save_file

from nodes import load_custom_node

torch.manual_seed(1)
# More wait for one another on a loaded machine, and these tensors are small.
torch.set_num_threads(1)
# Nodes add their pages to it as they load; it never listens.
server.PromptServer(asyncio.new_event_loop())
_executor = execution.PromptExecutor(
    server.PromptServer.instance, execution.CacheType.CLASSIC, {"lru": 0, "ram": 0, "ram_inactive": 0}
)


def load(*folders):
    """Load custom nodes of the image as ComfyUI does."""
    for folder in folders:
        assert asyncio.run(load_custom_node(f"{NODES}/{folder}")), folder
    logging.getLogger().setLevel(logging.WARNING)


def graph(workflow, **settings):
    """A graph of ours as `--set` makes it; NODE__INPUT sets an input that the index does not name."""
    index = tomllib.loads((WORKFLOWS / "index.toml").read_text())["workflow"]
    entry = next(entry for entry in index if entry["name"] == workflow)
    made = json.loads((WORKFLOWS / entry["file"]).read_text())
    for key, value in settings.items():
        if key in entry.get("choices", {}):
            option = entry["choices"][key]["options"][value]
            made |= option.get("nodes", {})
            changes = option.get("set", {})
        else:
            places = entry["inputs"][key]["at"] if key in entry["inputs"] else [key.replace("__", ".")]
            changes = dict.fromkeys(places, value)
        for place, new in changes.items():
            node, name = place.split(".")
            made[node]["inputs"][name] = new
    return made


def run(made, *wanted):
    """Validate and run a graph; the first output of each node in `wanted`."""
    valid, error, outputs, problems = asyncio.run(execution.validate_prompt("late", made, None))
    assert valid, (error, problems)
    _executor.execute(made, "late", {}, outputs)
    failed = [data for event, data in _executor.status_messages if event == "execution_error"]
    assert _executor.success and not failed, "".join(failed[0]["traceback"]) + failed[0]["exception_message"]
    return [asyncio.run(_executor.caches.outputs.get(node)).outputs[0][0] for node in wanted]


def keep(path, tensors):
    """Write a file of weights below the models' folder."""
    file = MODELS / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    else:
        torch.save(tensors, file)


def spread(weight):
    """Random weights of that shape, of a size that keeps what goes through about as large as it was."""
    return torch.randn(weight.shape) / (weight[0].numel() ** 0.5 if weight.ndim > 1 else 10)


def linear(weights, name, *shape):
    """Random weights and a bias."""
    weights[f"{name}.weight"] = spread(torch.empty(shape))
    weights[f"{name}.bias"] = spread(torch.empty(shape[0]))


def wan(channels, is_wan21_i2v=False):
    """WAN's transformer under its published names. Its loader reads the sizes from here, and makes 30 blocks of 12 heads."""
    width, inner = 96, 64
    weights = {"head.modulation": torch.randn(1, 2, width) / 10}
    linear(weights, "patch_embedding", width, channels, 1, 2, 2)
    linear(weights, "text_embedding.0", width, 4096)
    linear(weights, "text_embedding.2", width, width)
    linear(weights, "time_embedding.0", width, 256)
    linear(weights, "time_embedding.2", width, width)
    linear(weights, "time_projection.1", 6 * width, width)
    linear(weights, "head.head", 64, width)
    for block in (f"blocks.{number}" for number in range(30)):
        weights[f"{block}.modulation"] = torch.randn(1, 6, width) / 10
        weights |= {f"{block}.norm3.weight": torch.ones(width), f"{block}.norm3.bias": torch.zeros(width)}
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                linear(weights, f"{block}.{attention}.{part}", width, width)
            weights |= {f"{block}.{attention}.norm_{part}.weight": torch.ones(width) for part in "qk"}
        linear(weights, f"{block}.ffn.0", inner, width)
        linear(weights, f"{block}.ffn.2", width, inner)
        if is_wan21_i2v:
            linear(weights, f"{block}.cross_attn.k_img", width, width)
            linear(weights, f"{block}.cross_attn.v_img", width, width)
            weights[f"{block}.cross_attn.norm_k_img.weight"] = torch.ones(width)
    if is_wan21_i2v:
        for number, size in (("0", 1280), ("4", width)):
            weights |= {
                f"img_emb.proj.{number}.weight": torch.ones(size),
                f"img_emb.proj.{number}.bias": torch.zeros(size),
            }
        linear(weights, "img_emb.proj.1", 1280, 1280)
        linear(weights, "img_emb.proj.3", width, 1280)
    return weights


def in_fp8(weights):
    """The same as ComfyUI's published fp8 files hold it: each matrix of a block beside its scale."""
    made = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, weight in weights.items():
        made[name] = weight
        if name.startswith("blocks.") and name.endswith(".weight") and weight.ndim == 2:
            scale = weight.abs().max() / 448
            made[name] = (weight / scale).to(torch.float8_e4m3fn)
            made[name.replace(".weight", ".scale_weight")] = scale
    return made


def keep_vae(path):
    """WAN's VAE with a sixteenth of its weights, as the wrapper also takes it."""
    vae = import_module(".wanvideo.wan_video_vae", WRAPPER).WanVideoVAE(dtype=torch.float32, pruning_rate=0.75)
    keep(
        path,
        {name: weight.fill_(1) if "gamma" in name else spread(weight) for name, weight in vae.state_dict().items()},
    )


def keep_words(made):
    """Random embeddings where the wrapper keeps those of words that it met before: its T5 has 11 GB, whatever it is given."""
    wrapper = import_module(".nodes", WRAPPER)
    wrapper.cache_dir = str(HOME / "words")
    Path(wrapper.cache_dir).mkdir(exist_ok=True)
    text = made["text"]["inputs"]
    for prompt in (text["positive_prompt"], text["negative_prompt"]):
        if not Path(wrapper.get_cache_path(prompt)).exists():
            torch.save([torch.randn(7, 4096)], wrapper.get_cache_path(prompt))
    (MODELS / "text_encoders").mkdir(parents=True, exist_ok=True)
    (MODELS / "text_encoders" / text["model_name"]).touch()
    text["use_disk_cache"] = True


def keep_inputs(frames, rate=16):
    """The video and the picture that our graphs name: `frames` as uint8, NHWC."""
    with av.open(str(HOME / "input/example.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    Image.fromarray(frames[0]).save(HOME / "input/example.png")


def moving(count):
    """Frames of a square that moves over a gradient; each differs from each."""
    frames = np.zeros((count, 2 * HEIGHT, 2 * WIDTH, 3), dtype=np.uint8)
    frames[..., 0] = np.linspace(0, 255, 2 * WIDTH, dtype=np.uint8)
    for number, frame in enumerate(frames):
        frame[20:60, 4 * number : 4 * number + 40, 1:] = 40 + 4 * number
    return frames


def faces():
    """FRAMES of a face as large as the nodes' own detector finds it, then as many of it mirrored."""
    from skimage import data

    face = np.asarray(Image.fromarray(data.astronaut()[:256, 96:352]).resize((512, 512)))
    return np.stack([face] * FRAMES + [face[:, ::-1]] * FRAMES)


def is_film(samples, images, frames=FRAMES, width=WIDTH, height=HEIGHT):
    """Whether latents and pictures are whole numbers of the right shape."""
    latents, pictures = samples["samples"], images
    assert latents.shape == (1, 16, (frames - 1) // 4 + 1, height // 8, width // 8), latents.shape
    assert pictures.shape == (frames, height, width, 3), pictures.shape
    assert torch.isfinite(latents).all() and torch.isfinite(pictures).all()
    assert pictures.std() > 0


def apart(one, other):
    """How far the latents of two samples lie apart, as a part of their own spread."""
    return float((one["samples"] - other["samples"]).abs().mean() / one["samples"].std())
