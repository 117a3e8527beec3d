"""Our XTTS class speaks with a published kind of checkpoint of random weights, and leaves the file as it is."""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models
from TTS.tts.configs.xtts_config import XttsConfig
from TTS.tts.models import xtts

sys.path.insert(0, "/opt/hearmeman/voice")
from hearmeman_voice import audio
from hearmeman_voice.engine import Request, Voice
from hearmeman_voice.engines.xtts import Xtts

os.environ["COQUI_TOS_AGREED"] = "1"
torch.manual_seed(0)
with tempfile.TemporaryDirectory() as place:
    folder = Path(place, "xtts", "v2")
    folder.mkdir(parents=True)
    signs = ["[STOP]", "[UNK]", "[SPACE]", "[START]", "[en]", "[zh-cn]", "[zh]", *"abcdefghijklmnopqrstuvwxyz.,!?'"]
    tokenizer = Tokenizer(
        models.BPE(vocab={sign: index for index, sign in enumerate(signs)}, merges=[], unk_token="[UNK]")
    )
    tokenizer.add_special_tokens(signs[:7])
    tokenizer.save(str(folder / "vocab.json"))
    sizes = {"gpt_layers": 2, "gpt_n_heads": 4, "gpt_max_audio_tokens": 60, "gpt_max_text_tokens": 60}
    config = XttsConfig()
    config.model_args.update(sizes)
    config.save_json(str(folder / "config.json"))
    model = xtts.Xtts(config)
    model.tokenizer = xtts.VoiceBpeTokenizer(vocab_file=str(folder / "vocab.json"))
    model.init_models()
    # As it was published: with its configuration pickled, which coqui-tts converts in place.
    with xtts._legacy_safe_globals():
        torch.save({"config": config, "model": model.state_dict()}, folder / "model.pth")
    latents = {"gpt_cond_latent": torch.randn(1, 32, 1024), "speaker_embedding": torch.randn(1, 512, 1)}
    torch.save({"Ana Florence": latents, "Eugenio Mataracı": latents}, folder / "speakers_xtts.pth")
    del model
    before = hashlib.sha256((folder / "model.pth").read_bytes()).hexdigest()
    (folder / "model.pth").chmod(0o444)

    engine = Xtts(Path(place))
    assert engine.missing() is None, engine.missing()
    engine.load()
    assert hashlib.sha256((folder / "model.pth").read_bytes()).hexdigest() == before, "the checkpoint was rewritten"

    clip = Path(place, "clip.wav")
    clip.write_bytes(audio.wav((np.random.default_rng(0).normal(size=44100 * 3) * 0.1).astype(np.float32), 44100))
    voice = Voice("clip", clip)
    for more in ({}, {"speed": 1.5, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "repetition_penalty": 5.0}):
        first, again = ([*engine.synthesize(Request("hello there.", voice, seed=1, **more))] for _ in range(2))
        assert all(block.dtype == np.float32 and block.ndim == 1 for block in first)
        sound = np.concatenate(first)
        assert len(sound) > 1000 and np.array_equal(sound, np.concatenate(again))
        print(more, [len(block) for block in first])
    assert engine._known.hits == 3
    # More tokens than the model takes are two texts.
    assert len(engine._fitting("a word and " * 12, "en")) > 1
    long = sum(len(block) for block in engine.synthesize(Request("a word and " * 12, voice, seed=1)))
    assert long > len(sound)
    # The names are read without torch; the model speaks with what torch reads.
    ana, _ = engine.voices
    assert ana.id == "Ana Florence"
    assert sum(len(block) for block in engine.synthesize(Request("hello there.", ana, seed=1))) > 1000
    heard = []
    for block in engine.synthesize(Request("hello there.", voice, seed=1), lambda heard=heard: bool(heard)):
        heard.append(block)
    assert len(heard) == 1
engine.unload()
print("voice xtts", len(sound), long)
