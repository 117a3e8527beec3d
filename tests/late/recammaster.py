"""ReCamMaster's graph films a video again with small random weights: along another camera path, another film."""

from itertools import combinations

import late_graph as late

late.load("ComfyUI-WanVideoWrapper", "ComfyUI-KJNodes", "ComfyUI-VideoHelperSuite")
weights = late.wan(16)
for block in range(30):
    late.linear(weights, f"blocks.{block}.cam_encoder", 96, 12)
    late.linear(weights, f"blocks.{block}.projector", 96, 96)
late.keep(
    "diffusion_models/Wan2_1_kwai_recammaster_1_3B_step20000_bf16.safetensors",
    {name: weight.bfloat16() for name, weight in weights.items()},
)
late.keep_vae("vae/Wan2_1_VAE_bf16.safetensors")
late.keep_inputs(late.moving(12))


def film(camera, **changes):
    """The latents of one small film after two steps."""
    small = late.SMALL | {"video__frame_load_cap": late.FRAMES}
    made = late.graph("camera-move", camera=camera, **small, steps=2, blocks=10, **changes)
    late.keep_words(made)
    samples, images = late.run(made, "sampler", "decode")
    late.is_film(samples, images)
    return samples


films = {camera: film(camera) for camera in ("arc_left", "zoom_in", "pan_right")}
for camera, other in combinations(films, 2):
    assert late.apart(films[camera], films[other]) > 1e-4, (camera, other)
assert late.apart(film("arc_left", seed=42), films["arc_left"]) == 0
other_video = late.apart(film("arc_left", video__skip_first_frames=3), films["arc_left"])
assert other_video > 1e-3, other_video
print("recammaster", len(films), round(other_video, 3))
