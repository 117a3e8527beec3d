"""TurboDiffusion's sampler runs two steps on a small model with random weights."""

import sys

sys.argv = ["turbodiffusion", "--cpu"]
sys.path[:0] = ["/opt/comfyui", "/opt/comfyui-nodes/Comfyui_turbodiffusion/turbodiffusion_vendor"]
import torch
from rcm.cm_sampler import rcm_sampler


class Small(torch.nn.Module):
    """Takes what the sampler gives its model."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Conv3d(16, 16, 1)
        self.calls = 0

    def forward(self, x_B_C_T_H_W, timesteps_B_T, **condition):
        """One prediction."""
        self.calls += 1
        return self.mix(x_B_C_T_H_W.float()).to(x_B_C_T_H_W.dtype)


model = Small()
noise = torch.randn(1, 16, 2, 4, 4)
with torch.no_grad():
    out = rcm_sampler(model, noise, {"crossattn_emb": torch.zeros(1, 4, 8)}, num_steps=2, verbose=False)
assert out.shape == noise.shape
assert model.calls >= 2
from rcm.networks.wan2pt2 import WanModel
from rcm.tokenizers.wan2pt1 import Wan2pt1VAEInterface

assert WanModel and Wan2pt1VAEInterface
print("turbodiffusion", model.calls)
