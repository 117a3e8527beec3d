"""MVInverse's nodes run on random weights in upstream's own layout, and a file that lacks weights is refused."""

import shutil
import sys
import tempfile
from pathlib import Path

sys.argv = ["mvinverse", "--cpu"]
sys.path[:0] = ["/opt/comfyui", "/opt/comfyui-nodes"]
models = Path(tempfile.mkdtemp())

import comfy.options

comfy.options.enable_args_parsing()
import folder_paths

folder_paths.models_dir = str(models)

import comfy.model_management as management
import torch
from hearmeman.mvinverse_nodes import MVInverseMaps, MVInverseModel
from mvinverse.models.mvinverse import MVInverse
from safetensors.torch import save_file

torch.set_num_threads(2)
try:
    # Its encoders and its depth are fixed; only these make it smaller.
    MVInverse(mlp_ratio=1).half().save_pretrained(models / "mvinverse/weights")
    assert MVInverseModel.INPUT_TYPES()["required"]["model"][0] == ["weights"]
    [model] = MVInverseModel().load("weights")
    maps = MVInverseMaps().run(model, torch.rand(2, 120, 150, 3), 144)
    assert [tuple(one.shape) for one in maps] == [(2, 112, 140, 3)] * 5, [one.shape for one in maps]
    assert all(torch.isfinite(one).all() and one.min() >= 0 and one.max() <= 1 for one in maps)
    normal = maps[3] * 2 - 1
    assert torch.allclose(normal.norm(dim=-1), torch.ones(2, 112, 140), atol=1e-2)
    assert any(loaded.model is model for loaded in management.current_loaded_models)

    del model
    save_file({"register_token": torch.zeros(1, 1, 5, 1024)}, models / "mvinverse/weights/model.safetensors")
    try:
        MVInverseModel().load("weights")
    except ValueError as error:
        assert "lacks" in str(error) and "albedo_head" in str(error), error
    else:
        raise AssertionError("a file that lacks weights was taken")
finally:
    shutil.rmtree(models)
print("mvinverse", tuple(maps[0].shape))
