"""The values of each graph: those that ComfyUI's own templates, or the authors' examples, have for the same system."""

from __future__ import annotations

from typing import Any

import pytest

from hearmeman.workflows import library, schema
from hearmeman.workflows.library import Graph
from support.repository import ROOT

FOLDER = ROOT / "workflows"
WORKFLOWS = library.load(FOLDER)
SCHEMA = schema.read(FOLDER / schema.FILE)

UNI_PC = {"sampler": "uni_pc", "scheduler": "simple"}
EULER = {"sampler_high.sampler_name": "euler", "sampler_low.sampler_name": "euler", "sampler_low.scheduler": "simple"}
PAIR = {
    "sampler_high.add_noise": "enable",
    "sampler_high.start_at_step": 0,
    "sampler_high.return_with_leftover_noise": "enable",
    "sampler_low.add_noise": "disable",
    "sampler_low.noise_seed": 0,
    "sampler_low.return_with_leftover_noise": "disable",
}
"""How two experts share the steps, whatever their number."""
LIGHTX2V = {
    "lora.lora": "lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors",
    "lora.strength": 1.0,
}
CONTROLNET = {
    "width": 512,
    "height": 512,
    "begin": 0.0,
    "end": 1.0,
    "steps": 25,
    "cfg": 7,
    "sampler": "dpmpp_2m",
    "scheduler": "karras",
}
VIBEVOICE = {
    "steps": 20,
    "seed": 42,
    "cfg": 1.3,
    "sampling": False,
    "temperature": 0.95,
    "top_p": 0.95,
    "speed": 1.0,
    "speech.attention_type": "auto",
    "speech.quantize_llm": "full precision",
    "speech.free_memory_after_generate": True,
}


def size(width: int, height: int, frames: int, fps: float) -> dict[str, Any]:
    return {"width": width, "height": height, "frames": frames, "fps": fps}


def run(steps: int, cfg: float, shift: float) -> dict[str, Any]:
    return {"steps": steps, "cfg": cfg, "shift": shift}


VALUES: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("wan21-t2v-1.3b", {}, size(832, 480, 33, 16) | run(30, 6, 8) | UNI_PC),
    ("wan21-t2v-14b", {}, size(832, 480, 33, 16) | run(20, 6, 5) | UNI_PC),
    # The template's 512x512 is that of the 480p model; ours is the 720p one.
    ("wan21-i2v-14b", {}, size(832, 480, 33, 16) | run(20, 6, 8) | UNI_PC),
    ("wan22-i2v", {"speed": "full"}, size(640, 640, 81, 16) | run(20, 3.5, 5) | {"handover": 10} | EULER | PAIR),
    ("wan22-i2v", {"speed": "4steps"}, run(4, 1, 5) | {"handover": 2, "lora_high.strength_model": 1.0} | EULER | PAIR),
    ("wan22-flf2v", {"speed": "full"}, size(640, 640, 81, 16) | run(20, 4, 8) | {"handover": 10} | EULER | PAIR),
    ("wan22-flf2v", {"speed": "4steps"}, run(4, 1, 5) | {"handover": 2} | EULER | PAIR),
    ("wan22-fun-inp", {"speed": "full"}, size(640, 640, 81, 16) | run(20, 3.5, 8) | {"handover": 10} | EULER | PAIR),
    ("wan22-fun-inp", {"speed": "4steps"}, run(4, 1, 8) | {"handover": 2} | EULER | PAIR),
    ("wan22-ti2v-5b", {"from": "text"}, size(1280, 704, 121, 24) | run(20, 5, 8) | UNI_PC),
    ("wan22-ti2v-5b", {"from": "image"}, size(1280, 704, 121, 24) | run(20, 5, 8) | UNI_PC),
    ("vace-t2v", {"speed": "full"}, size(1280, 720, 81, 16) | run(20, 6, 8) | UNI_PC),
    ("vace-t2v", {"speed": "4steps"}, run(4, 1, 8) | UNI_PC | {"lora.strength_model": 0.7}),
    ("vace-v2v", {"speed": "4steps"}, size(720, 720, 81, 16) | run(4, 1, 8) | UNI_PC | {"lora.strength_model": 0.3}),
    ("vace-inpaint", {"speed": "full"}, size(720, 720, 81, 16) | run(20, 6, 5) | UNI_PC | {"grow": 20}),
    ("vace-inpaint", {"speed": "6steps"}, run(6, 1, 5) | UNI_PC | {"lora.strength_model": 0.3}),
    ("vace-outpaint", {"speed": "full"}, size(960, 960, 81, 16) | run(20, 6, 8) | {"padded.feathering": 0}),
    ("vace-outpaint", {"speed": "3steps"}, run(3, 1, 8) | UNI_PC | {"lora.strength_model": 0.4}),
    (
        "scail2",
        {"speed": "6steps"},
        size(896, 512, 81, 30) | run(6, 1, 5) | {"sampler": "euler", "dpo.strength_model": 1.0, "lora.strength_model": 0.8},
    ),
    ("scail2", {"speed": "full"}, run(40, 5, 5) | {"scheduler": "simple"}),
    ("steadydancer", {}, size(832, 480, 81, 16) | run(4, 1, 5) | {"scheduler": "dpm++_sde", "blocks": 35} | LIGHTX2V),
    (
        "scail",
        {},
        size(512, 896, 81, 16) | run(6, 1, 7) | {"scheduler": "dpm++_sde", "blocks": 25} | LIGHTX2V
        | {"strength": 1.0, "steered.start_percent": 0.0, "steered.end_percent": 0.5, "reference.strength": 1.0}
        | {"context.context_schedule": "uniform_standard", "context.context_frames": 81, "context.context_stride": 4}
        | {"context.context_overlap": 48, "seed": 42},
    ),
    (
        "flashportrait",
        {},
        {"steps": 30, "sampler.cfg_scale": 1.0, "shift": 5, "sampler.guidance_scale": 4.0, "sampler.text_cfg_scale": 1.0}
        | {"sampler.emo_cfg_scale": 4.0, "sampler.max_size": 720, "sampler.context_size": 51}
        | {"sampler.context_overlap": 30, "face.source_fps": 25.0, "face.context_size": 51, "face.context_overlap": 30},
    ),
    # What StoryMem's own configuration has; 13 of 40 steps lie above its boundary of 0.9.
    ("storymem", {}, size(832, 480, 81, 16) | run(40, 3.5, 4) | {"handover": 13, "scheduler": "unipc", "strength": 1.0}),
    ("storymem", {"shot": "text"}, run(40, 3.5, 4)),
    # Kijai's example of ReCamMaster, and its authors' size.
    ("camera-move", {}, {"width": 832, "height": 480, "fps": 16} | run(20, 6, 5)),
    (
        "wan22-i2v-turbodiffusion",
        {},
        {"frames": 33, "steps": 4, "resolution": "480", "aspect": "1:1", "fps": 24, "sampler.boundary": 0.9},
    ),
    (
        "z-image-turbo",
        {},
        {"width": 1024, "height": 1024, "sampler": "res_multistep", "scheduler": "simple", "clip.type": "lumina2"}
        | run(8, 1, 3),
    ),
    ("qwen-image-edit", {"speed": "full"}, run(40, 4, 3.1) | {"sampler": "euler", "norm.strength": 1.0}),
    ("qwen-image-edit", {"speed": "4steps"}, run(4, 1, 3.1) | {"lora.strength_model": 1.0}),
    (
        "realism-illustrious",
        {},
        {"width": 832, "height": 1216, "steps": 25, "cfg": 7, "sampler": "dpmpp_2m", "scheduler": "karras"},
    ),
    # No template has ControlNets of SD 1.5: how one is applied is from SD 3.5's, the sampling from SDXL's plain one, and
    # the size of the hints is comfyui_controlnet_aux's own.
    ("controlnet-canny", {}, CONTROLNET | {"hint.low_threshold": 0.3, "hint.high_threshold": 0.6}),
    ("controlnet-depth", {}, CONTROLNET | {"hint.resolution": 512, "hint.ckpt_name": "depth_anything_v2_vitl.pth"}),
    (
        "controlnet-openpose",
        {},
        CONTROLNET | {f"hint.detect_{part}": "enable" for part in ("body", "face", "hand")} | {"hint.resolution": 512},
    ),
    ("controlnet-lineart", {}, CONTROLNET | {"hint.resolution": 512, "hint.coarse": "disable"}),
    ("controlnet-normalbae", {}, CONTROLNET | {"hint.resolution": 512}),
    ("vibevoice-single", {}, VIBEVOICE | {"words": 250}),
    ("vibevoice-multi", {}, VIBEVOICE),
    (
        "vibevoice-lora",
        {},
        VIBEVOICE | {"speech.max_words_per_chunk": 250, "lora.llm_strength": 1.0, "lora.use_llm": True, "lora.use_diffusion_head": True}
        | {"lora.use_acoustic_connector": True, "lora.use_semantic_connector": True},
    ),
    (
        "chatterbox-tts",
        {},
        {"speech.max_new_tokens": 1000, "speech.flow_cfg_scale": 0.7, "speech.exaggeration": 0.5}
        | {"speech.temperature": 0.8, "speech.cfg_weight": 0.5, "speech.repetition_penalty": 1.2}
        | {"speech.min_p": 0.05, "speech.top_p": 1.0},
    ),
    ("chatterbox-vc", {}, {"speech.n_timesteps": 10, "speech.temperature": 1.0, "speech.flow_cfg_scale": 0.7}),
    # What the specification ships under its three names, where ComfyUI can run it.
    (
        "wan21-t2v-14b-api",
        {},
        {"width": 480, "height": 320, "frames": 17, "steps": 15, "cfg": 6, "format": "video/webm"} | UNI_PC,
    ),
    (
        "z-image-turbo-txt2img",
        {},
        {"width": 1024, "height": 1024, "steps": 9, "cfg": 1, "sampler": "euler", "clip.type": "qwen_image"},
    ),
    (
        "realism-illustrious-txt2img",
        {},
        {"width": 1024, "height": 1024, "steps": 25, "cfg": 7, "sampler": "dpmpp_2m", "scheduler": "karras"},
    ),
]  # fmt: skip


def graph_of(name: str, options: dict[str, str]) -> Graph:
    workflow = WORKFLOWS[name]
    return schema.reachable(library.choose(library.graph(workflow), workflow, workflow.defaults({}) | options), SCHEMA)


@pytest.mark.parametrize(
    ("name", "options", "wanted"), VALUES, ids=[f"{n} {' '.join(o.values())}" for n, o, _ in VALUES]
)
def test_a_graph_has_the_values_of_its_authors(name: str, options: dict[str, str], wanted: dict[str, Any]) -> None:
    graph = graph_of(name, options)

    def found(key: str) -> list[Any]:
        given = WORKFLOWS[name].inputs.get(key)
        places = given.places if given else [tuple(key.split("."))]
        return [graph[node]["inputs"][name] for node, name in places if node in graph]

    seen = {key: found(key) for key in wanted}
    assert seen == {key: [value] * len(seen[key]) for key, value in wanted.items()}
    assert all(seen.values())


def test_the_wrappers_nodes_are_given_what_their_code_asks_for() -> None:
    """Left out, block swap's VACE part fails the sampler, and its rope is one that knows of no memories."""
    wanted = {"WanVideoBlockSwap": ("vace_blocks_to_swap", 0), "WanVideoSampler": ("rope_function", "comfy")}
    seen = 0
    for workflow in WORKFLOWS.values():
        for node in library.graph(workflow).values():
            if node["class_type"] in wanted:
                key, value = wanted[node["class_type"]]
                assert node["inputs"].get(key) == value, workflow.name
                seen += 1
    assert seen >= 10
    story = library.graph(WORKFLOWS["storymem"])["story"]["inputs"]
    assert story["rope_negative_offset"] is True


def test_what_is_masked_in_a_video_is_masked_in_each_of_its_frames() -> None:
    """A mask of one frame would leave the others to be made wholly anew: ComfyUI fills up with ones."""
    for name in ("vace-inpaint", "vace-outpaint"):
        graph = graph_of(name, {})
        masks = graph[graph["vace"]["inputs"]["control_masks"][0]]
        every = graph[masks["inputs"]["image"][0]]
        assert every["class_type"] == "RepeatImageBatch"
        assert every["inputs"]["amount"] == graph["vace"]["inputs"]["length"]


def test_a_film_after_a_video_is_as_long_as_what_was_read_of_it() -> None:
    """The nodes say nothing of a video with fewer frames: the rest of the film would be without poses, or made up."""
    seen = 0
    for workflow in WORKFLOWS.values():
        graph = library.graph(workflow)
        asked = workflow.inputs.get("frames")
        if asked is None or ("video", "frame_load_cap") not in asked.places:
            continue
        lengths = [
            entry["inputs"][key]
            for entry in graph.values()
            for key in ("length", "num_frames")
            if key in entry["inputs"] and entry["class_type"] != "ImageFromBatch"
        ]
        assert lengths == [["video", 1]], workflow.name
        assert asked.places == (("video", "frame_load_cap"),), workflow.name
        seen += 1
    assert seen == 7


def test_scail_is_shown_poses_of_half_the_size_and_in_the_characters_own_proportions() -> None:
    """The model was trained with them at half; the other way its frames are four times as many tokens, and strange to it."""
    graph = graph_of("scail", {})
    poses = graph["poses"]["inputs"]
    halves = graph[poses["width"][0]]
    assert (poses["width"], poses["height"]) == ([poses["width"][0], 0], [poses["width"][0], 1])
    assert halves["class_type"] == "GetImageSize"
    small = graph[halves["inputs"]["image"][0]]
    assert (small["class_type"], small["inputs"]["scale_by"]) == ("ImageScaleBy", 0.5)
    assert small["inputs"]["image"] == graph[poses["ref_dw_pose"][0]]["inputs"]["images"] == ["person", 0]


def test_steadydancer_sees_the_first_pose_and_not_the_mean_of_all() -> None:
    graph = graph_of("steadydancer", {})
    seen = graph[graph["seen_pose"]["inputs"]["image_1"][0]]
    assert (seen["class_type"], seen["inputs"]["batch_index"], seen["inputs"]["length"]) == ("ImageFromBatch", 0, 1)
    assert seen["inputs"]["image"] == graph["poses"]["inputs"]["image"]


def test_what_is_made_anew_is_empty_in_what_vace_is_shown() -> None:
    """VACE keeps what it sees under the mask."""
    inputs = graph_of("vace-inpaint", {})
    emptied = inputs[inputs["vace"]["inputs"]["control_video"][0]]
    assert emptied["class_type"] == "ImageCompositeMasked"
    assert emptied["inputs"]["mask"] == inputs["kept"]["inputs"]["mask"] == ["grown", 0]


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("vace-t2v", "steps", "20 to 30"),
        ("vace-inpaint", "cfg", "4 to 7"),
        ("vace-outpaint", "frames", "17 to 49"),
        ("wan22-fun-inp", "frames", "17 to 41"),
        ("wan22-fun-inp", "fps", "12 to 24"),
        ("wan22-i2v-turbodiffusion", "steps", "1 to 4"),
        ("wan22-i2v", "speed", "steps=6 handover=3 or steps=8 handover=4"),
    ],
)
def test_the_specifications_guidance_is_the_parameters_help(name: str, key: str, said: str) -> None:
    workflow = WORKFLOWS[name]
    assert said in (workflow.inputs[key].help if key in workflow.inputs else workflow.choices[key].help)


@pytest.mark.parametrize("steps", [4, 6, 8, 20])
def test_more_steps_are_shared_out_by_the_handover(steps: int) -> None:
    workflow = WORKFLOWS["wan22-i2v"]
    asked = library.apply(workflow, library.graph(workflow), [f"steps={steps}", f"handover={steps // 2}"])
    high, low = asked["sampler_high"]["inputs"], asked["sampler_low"]["inputs"]
    assert (high["steps"], high["end_at_step"]) == (low["steps"], low["start_at_step"]) == (steps, steps // 2)
    assert low["end_at_step"] >= steps
