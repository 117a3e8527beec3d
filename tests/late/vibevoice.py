"""VibeVoice's model class builds and runs a step with random weights: its nodes register even where this fails."""

import sys

import torch

sys.path.insert(0, "/opt/comfyui-nodes/VibeVoice-ComfyUI/vvembed")
from modular.configuration_vibevoice import VibeVoiceConfig
from modular.modeling_vibevoice_inference import VibeVoiceForConditionalGenerationInference

tokenizer = {"encoder_n_filters": 4, "encoder_ratios": [4, 2], "encoder_depths": "1-1-1"}
config = VibeVoiceConfig(
    acoustic_tokenizer_config={**tokenizer, "vae_dim": 8, "decoder_n_filters": 4},
    semantic_tokenizer_config={**tokenizer, "vae_dim": 8},
    decoder_config={
        "model_type": "qwen2",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 128,
    },
    diffusion_head_config={"hidden_size": 32, "latent_size": 8, "head_layers": 1, "speech_vae_dim": 8},
)
model = VibeVoiceForConditionalGenerationInference(config).eval()
with torch.no_grad():
    hidden = model.model.language_model(input_ids=torch.arange(6)[None]).last_hidden_state
    latent = model.model.prediction_head(torch.zeros(2, 8), torch.zeros(2), condition=torch.zeros(2, 32))
    audio = model.model.acoustic_tokenizer.decode(torch.zeros(1, 8, 3))
assert hidden.shape == (1, 6, 32)
assert latent.shape == (2, 8)
assert audio.shape[-1] > 3
print("vibevoice", tuple(audio.shape))
