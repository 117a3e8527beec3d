"""Chatterbox by Resemble AI, English or 23 languages: imitates recordings, acts, and watermarks its output."""

import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from hearmeman_voice import tail
from hearmeman_voice.audio import stretch
from hearmeman_voice.cache import Conditionals
from hearmeman_voice.engine import Request, Samples, Voice, never
from hearmeman_voice.refusals import Failed, Refused

LANGUAGES = (
    "ar",
    "da",
    "de",
    "el",
    "en",
    "es",
    "fi",
    "fr",
    "he",
    "hi",
    "it",
    "ja",
    "ko",
    "ms",
    "nl",
    "no",
    "pl",
    "pt",
    "ru",
    "sv",
    "sw",
    "tr",
    "zh",
)
FILES = {
    "english": ("ve.safetensors", "t3_cfg.safetensors", "s3gen.safetensors", "tokenizer.json", "conds.pt"),
    "multilingual": (
        "ve.pt",
        "t3_mtl23ls_v2.safetensors",
        "s3gen.pt",
        "grapheme_mtl_merged_expanded_v1.json",
        "conds.pt",
        "Cangjie5_TC.json",
    ),
}
"""What each model reads. Source: chatterbox-tts 0.1.7, tts.py and mtl_tts.py."""
SEGMENTER = "spacy_ontonotes.zip"
"""What splits Chinese into words before the tokenizer; only Chinese needs it."""
LIMITS = {"zh": 60, "ja": 60, "ko": 100}
"""Characters of a chunk in scripts where each is a syllable or more: the model ends after 40 s of sound."""
PAUSE = 0.12
"""Seconds of silence after a chunk, since its own end is trimmed."""
_TOKENS_A_SECOND = 25
_MOST_TOKENS = 1000
_SOUNDS = 6561
"""Tokens below stand for sounds (chatterbox/models/s3tokenizer, SPEECH_VOCAB_SIZE)."""
_KNOBS = ("temperature", "repetition_penalty", "top_p", "min_p")


class _Stopped(Exception):
    """Raised inside the model when nobody is listening any more."""


class Chatterbox:
    """The published model in `models`/chatterbox; `model` is multilingual or english."""

    name = "chatterbox"
    rate = 24000
    voices = (Voice("chatterbox", language="en"),)
    clones = True

    def __init__(self, models: Path, model: str = "multilingual") -> None:
        if model not in FILES:
            raise ValueError(f"CHATTERBOX_MODEL is {model!r}; it must be {' or '.join(FILES)}")
        self.model = model
        self.languages = LANGUAGES if model == "multilingual" else ("en",)
        self._folder = models / "chatterbox"
        self._tts: Any = None
        self._own: Any = None
        self._most = _MOST_TOKENS
        self._is_stopped: Callable[[], bool] = never
        self._known: Conditionals[Any] = Conditionals()

    @property
    def version(self) -> str:
        try:
            return f"{version('chatterbox-tts')} {self.model}"
        except PackageNotFoundError:
            return "absent"

    def limit(self, language: str) -> int:
        return LIMITS.get(language, 280)

    def missing(self) -> str | None:
        absent = [name for name in FILES[self.model] if not (self._folder / name).is_file()]
        return (
            f"Chatterbox's {', '.join(absent)} not in {self._folder} yet; `hearmeman status` shows the progress"
            if absent
            else None
        )

    def weight_files(self) -> tuple[Path, ...]:
        return tuple(self._folder / name for name in FILES[self.model][:3])

    def load(self) -> None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.model == "english":
            from chatterbox.tts import ChatterboxTTS as Model
        else:
            from chatterbox.models.tokenizers.tokenizer import ChineseCangjieConverter
            from chatterbox.mtl_tts import ChatterboxMultilingualTTS as Model

            # Chatterbox would download both into HOME; here they are read from the models' folder.
            ChineseCangjieConverter._init_segmenter = lambda converter: None
            ChineseCangjieConverter._load_cangjie_mapping = lambda converter, model_dir=None: None
        self.adopt(Model.from_local(self._folder, device))

    def adopt(self, tts: Any) -> None:
        """Speak with this model, a ChatterboxTTS or ChatterboxMultilingualTTS."""
        self._tts, self._own = tts, tts.conds
        if self.model == "multilingual":
            self._read_cangjie()
        inference = tts.t3.inference

        def bounded(**arguments: Any) -> Any:
            tokens = inference(**{**arguments, "max_new_tokens": self._most})
            # The multilingual model also emits tokens that stand for no sound; on a GPU they are a failed assertion.
            sounds = tokens[tokens < _SOUNDS]
            if not len(sounds):
                raise Failed("the engine found no sound for this text; try again, or write it out in words")
            return sounds.unsqueeze(0)

        # `generate` always allows 40 s, and has no argument for less.
        tts.t3.inference = bounded
        for part in (tts.t3.tfmr, tts.s3gen.flow.decoder.estimator):
            part.register_forward_pre_hook(self._look)

    def unload(self) -> None:
        self._tts = self._own = None
        self._known.clear()

    def synthesize(self, request: Request, stopped: Callable[[], bool] = never) -> Iterator[Samples]:
        if request.language == "zh":
            self._need_segmenter()
        import torch

        exaggeration = 0.5 if request.exaggeration is None else request.exaggeration
        self._is_stopped = stopped
        self._most = min(_MOST_TOKENS, int(tail.longest(request.text) * _TOKENS_A_SECOND))
        torch.manual_seed(request.seed) if request.seed is not None else torch.seed()
        try:
            self._study(request.voice, exaggeration)
            made = self._tts.generate(request.text, **self._arguments(request), exaggeration=exaggeration)
        except _Stopped:
            return
        finally:
            self._is_stopped = never
            self._forget_spies()
        samples = tail.trim(made.reshape(-1).numpy().astype(np.float32), self.rate)
        if request.speed != 1:
            stretched = stretch(samples, self.rate, request.speed)
            # A changed speed changes the sound: add the watermark again.
            samples = np.asarray(self._tts.watermarker.apply_watermark(stretched, sample_rate=self.rate), np.float32)
        yield samples
        yield np.zeros(int(PAUSE * self.rate), np.float32)

    def _arguments(self, request: Request) -> dict[str, Any]:
        given = {name: value for name in _KNOBS if (value := getattr(request, name)) is not None}
        weight = 0.5 if request.cfg_weight is None else request.cfg_weight
        if self.model == "multilingual":
            return {**given, "cfg_weight": weight, "language_id": request.language}
        # At 0 the English model makes one row for the text and two for the speech, and fails; this little sounds the same.
        return {**given, "cfg_weight": max(weight, 1e-6)}

    def _study(self, voice: Voice, exaggeration: float) -> None:
        """Make the model sound like this voice."""
        if voice.clip is None:
            if self._own is None:
                raise Refused(
                    "voice", "Chatterbox's own voice (conds.pt) is not there; choose another", "voice_not_found"
                )
            found = self._own
        else:
            found = self._known.get(
                voice.clip, (self.model, exaggeration), lambda: self._heard(voice.clip, exaggeration)
            )
        # `generate` changes its conditions, so the cache keeps its own copy.
        self._tts.conds = type(found)(found.t3, found.gen)

    def _heard(self, clip: Path | None, exaggeration: float) -> Any:
        self._tts.prepare_conditionals(str(clip), exaggeration=exaggeration)
        return self._tts.conds

    def _look(self, *_: object) -> None:
        if self._is_stopped():
            raise _Stopped

    def _forget_spies(self) -> None:
        """Remove the hooks that each multilingual text leaves on three layers; they slow down every later text."""
        if self.model == "multilingual":
            for layer in self._tts.t3.tfmr.layers:
                layer.self_attn._forward_hooks.clear()

    def _need_segmenter(self) -> None:
        """Split Chinese into words. Raises: Refused if the segmenter's model is missing."""
        packed = self._folder / SEGMENTER
        if not packed.is_file():
            raise Refused(
                "language",
                f"for Chinese, Chatterbox needs {SEGMENTER}, which is not in {self._folder}; `hearmeman models "
                "fetch` fetches it",
                "not_found",
            )
        converter = self._tts.tokenizer.cangjie_converter
        if converter.segmenter is not None:
            return
        from spacy_pkuseg import pkuseg

        with tempfile.TemporaryDirectory(prefix="voice-") as folder, zipfile.ZipFile(packed) as archive:
            archive.extractall(folder)
            names = {path.parent for path in Path(folder).rglob("features.*")}
            converter.segmenter = pkuseg(str(min(names)))

    def _read_cangjie(self) -> None:
        """Read the table of Chinese characters from the models' folder: the tokenizer only looks in a download cache."""
        converter = self._tts.tokenizer.cangjie_converter
        table = self._folder / "Cangjie5_TC.json"
        for entry in json.loads(table.read_text(encoding="utf-8")):
            word, code = entry.split("\t")[:2]
            converter.word2cj[word] = code
            converter.cj2word.setdefault(code, []).append(word)
