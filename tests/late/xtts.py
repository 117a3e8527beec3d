"""XTTS generates and streams with random weights, and rewrites a checkpoint that it meets with a pickled configuration."""

import hashlib
import tempfile
from pathlib import Path

import torch
from TTS.tts.configs.xtts_config import XttsConfig
from TTS.tts.models import xtts
from TTS.tts.models.xtts import Xtts, XttsArgs

arguments = XttsArgs(
    gpt_layers=2,
    gpt_n_model_channels=1024,
    gpt_n_heads=4,
    gpt_number_text_tokens=100,
    gpt_start_text_token=98,
    gpt_stop_text_token=99,
    gpt_max_audio_tokens=30,
    gpt_max_text_tokens=50,
)
config = XttsConfig(model_args=arguments)
torch.manual_seed(0)
model = Xtts(config)
model.tokenizer.encode = lambda text, lang: [1 + ord(letter) % 90 for letter in text]
model.hifigan_decoder.eval()
model.gpt.init_gpt_for_inference(kv_cache=True)
model.gpt.eval()
latent, speaker = torch.randn(1, 32, 1024), torch.randn(1, 512, 1)
with torch.no_grad():
    whole = model.inference("hello there", "en", latent, speaker, max_new_tokens=8)["wav"]
    chunks = list(model.inference_stream("hello", "en", latent, speaker, stream_chunk_size=4))
assert len(whole) > 100
assert chunks and all(chunk.numel() for chunk in chunks)

# Whoever gives it a verified or read-only file must give a copy: it converts the published checkpoint in place.
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "model.pth")
    with xtts._legacy_safe_globals():
        torch.save({"config": config, "model": {}}, path)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    model.get_compatible_checkpoint_state_dict(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() != before, "it no longer rewrites its checkpoint"
print("xtts", len(whole), len(chunks))
