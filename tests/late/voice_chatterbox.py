"""Our Chatterbox class loads the files of both models, random weights in them, speaks, and its watermark is there."""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import perth
import torch
from chatterbox.models.s3gen import S3Gen
from chatterbox.models.t3 import T3, llama_configs
from chatterbox.models.t3.modules.cond_enc import T3Cond
from chatterbox.models.t3.modules.t3_config import T3Config
from chatterbox.models.voice_encoder import VoiceEncoder
from safetensors.torch import save_file
from spacy_pkuseg.config import config as pkuseg
from spacy_pkuseg.feature_extractor import FeatureExtractor
from spacy_pkuseg.model import Model
from tokenizers import Tokenizer, models

sys.path.insert(0, "/opt/hearmeman/voice")
from hearmeman_voice import audio
from hearmeman_voice.engine import Request, Voice
from hearmeman_voice.engines.chatterbox import SEGMENTER, Chatterbox
from hearmeman_voice.refusals import Refused

# The least: the multilingual model looks at its layers 9, 12 and 13.
LAYERS = {"english": 2, "multilingual": 14}
SPECIAL = [
    "[STOP]",
    "[UNK]",
    "[SPACE]",
    *(f"[x{number}]" for number in range(252)),
    "[START]",
    "[en]",
    "[zh]",
    "[cj_a]",
    "[cj_.]",
]


def whole(module):
    """The state, each tensor with a memory of its own."""
    return {name: tensor.clone().contiguous() for name, tensor in module.state_dict().items()}


def write(folder, kind, s3gen):
    """The files of a model, as they are published."""
    hp = T3Config.english_only() if kind == "english" else T3Config.multilingual()
    llama_configs.LLAMA_CONFIGS[hp.llama_config_name] |= {"num_hidden_layers": LAYERS[kind]}
    vocabulary = {sign: index for index, sign in enumerate([*SPECIAL, *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJ.,!?"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="[UNK]"))
    tokenizer.add_special_tokens(SPECIAL)
    condition = T3Cond(
        speaker_emb=torch.randn(1, hp.speaker_embed_size),
        cond_prompt_speech_tokens=torch.randint(0, 6000, (1, hp.speech_cond_prompt_len)),
        emotion_adv=0.5 * torch.ones(1, 1, 1),
    )
    torch.save(
        {"t3": condition.__dict__, "gen": s3gen.embed_ref(torch.randn(1, 24000) * 0.1, 24000)}, folder / "conds.pt"
    )
    if kind == "english":
        save_file(whole(T3(hp)), folder / "t3_cfg.safetensors")
        save_file(whole(s3gen), folder / "s3gen.safetensors")
        save_file(whole(VoiceEncoder()), folder / "ve.safetensors")
        tokenizer.save(str(folder / "tokenizer.json"))
    else:
        save_file(whole(T3(hp)), folder / "t3_mtl23ls_v2.safetensors")
        torch.save(s3gen.state_dict(), folder / "s3gen.pt")
        torch.save(VoiceEncoder().state_dict(), folder / "ve.pt")
        tokenizer.save(str(folder / "grapheme_mtl_merged_expanded_v1.json"))
        (folder / "Cangjie5_TC.json").write_text(json.dumps(["好\ta", "犬\ta"]))


def write_segmenter(folder):
    """The archive that cuts Chinese into words, with the published one's members: here every sign begins a word."""
    features, weights = FeatureExtractor(), Model(n_feature=1, n_tag=2)
    features.unigram, features.bigram = set(), set()
    features.feature_to_idx, features.tag_to_idx = {"$$": 0}, {"B": 0, "I": 1}
    weights.w[0] = 1
    with tempfile.TemporaryDirectory() as place, zipfile.ZipFile(folder / SEGMENTER, "w") as archive:
        features.save(place)
        weights.save(place)
        for name in ("features.msgpack", "weights.npz"):
            archive.write(Path(place, name), name)


def speak_chinese(engine, folder):
    """Chinese alone needs the archive; with it a text is cut into words and begun, and nothing is downloaded."""
    assert pkuseg.model_hash["spacy_ontonotes"] in Path("/opt/hearmeman/catalogue.toml").read_text()
    # No word of the package's own list, whose words are put together again.
    request = Request("好犬。", Voice("own"), "zh", seed=1)
    try:
        [*engine.synthesize(request)]
    except Refused as problem:
        assert SEGMENTER in problem.message
    else:
        raise AssertionError("Chinese was spoken without its segmenter")
    write_segmenter(folder)
    # Its first tokens are enough: what follows is the same in every language.
    asked = iter(range(100))
    assert not [*engine.synthesize(request, lambda: next(asked) > 3)] and next(asked) > 4
    assert engine._tts.tokenizer.cangjie_converter("好犬") == "[cj_a][cj_.] [cj_a][cj_1][cj_.]"


torch.manual_seed(0)
s3gen = S3Gen().eval()
watermark = perth.PerthImplicitWatermarker()
lengths = []
for kind in LAYERS:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "chatterbox")
        folder.mkdir()
        write(folder, kind, s3gen)
        engine = Chatterbox(Path(place), kind)
        assert engine.missing() is None
        engine.load()
        clip = Path(place, "clip.wav")
        clip.write_bytes(audio.wav((np.random.default_rng(0).normal(size=22050) * 0.1).astype(np.float32), 22050))
        # Without guidance, the English model alone fails.
        request = Request("Hi.", Voice("clip", clip), seed=1, cfg_weight=0.0, exaggeration=0.7, speed=1.5)
        sound, pause = engine.synthesize(request)
        assert len(sound) > 1000 and not pause.any()
        assert float(np.mean(watermark.get_watermark(sound, sample_rate=engine.rate))) > 0.5
        assert engine._known._found and not any(
            layer.self_attn._forward_hooks for layer in engine._tts.t3.tfmr.layers[2:]
        )
        asked = iter(range(100))
        assert not [
            *engine.synthesize(Request("Nobody hears this.", Voice("own")), lambda asked=asked: next(asked) > 3)
        ]
        if kind == "multilingual":
            assert engine._tts.tokenizer.cangjie_converter("好") == "[cj_a][cj_.]"
            speak_chinese(engine, folder)
        lengths.append(len(sound))
print("voice chatterbox", *lengths)
