"""Chatterbox's T3 generates tokens and S3Gen makes sound of them, with random weights."""

import torch
from chatterbox.models.s3gen import S3Gen
from chatterbox.models.t3 import T3, llama_configs
from chatterbox.models.t3.modules.cond_enc import T3Cond
from chatterbox.models.t3.modules.t3_config import T3Config

torch.manual_seed(0)
hp = T3Config.english_only()
llama_configs.LLAMA_CONFIGS[hp.llama_config_name] |= {"num_hidden_layers": 2}
t3 = T3(hp).eval()
condition = T3Cond(
    speaker_emb=torch.randn(1, hp.speaker_embed_size),
    cond_prompt_speech_tokens=torch.randint(0, 6000, (1, hp.speech_cond_prompt_len)),
    emotion_adv=0.5 * torch.ones(1, 1, 1),
)
text = torch.tensor([[hp.start_text_token, 20, 30, 40, hp.stop_text_token]]).repeat(2, 1)
with torch.inference_mode():
    tokens = t3.inference(t3_cond=condition, text_tokens=text, max_new_tokens=6)
assert tokens.numel() > 0

s3gen = S3Gen().eval()
with torch.inference_mode():
    sound, _ = s3gen.inference(
        speech_tokens=torch.randint(0, 6000, (1, 12)), ref_wav=torch.randn(1, 24000), ref_sr=24000
    )
assert sound.numel() > 1000
import perth

assert perth.PerthImplicitWatermarker is not None
print("chatterbox", tokens.numel(), sound.numel())
