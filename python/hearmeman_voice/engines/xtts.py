"""XTTS v2 by coqui-tts: seventeen languages, imitates a recording, and streams within a sentence."""

import os
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from hearmeman_voice.cache import Conditionals
from hearmeman_voice.engine import Request, Samples, Voice, never
from hearmeman_voice.engines import studio
from hearmeman_voice.log import log
from hearmeman_voice.refusals import Refused

LIMITS = {
    "en": 250, "de": 253, "fr": 273, "es": 239, "it": 213, "pt": 203, "pl": 224, "zh-cn": 82, "ar": 166, "cs": 186,
    "ru": 182, "nl": 251, "tr": 226, "ja": 71, "hu": 224, "ko": 95, "hi": 150,
}  # fmt: skip
"""Characters of a chunk in each language. Source: TTS/tts/layers/xtts/tokenizer.py, char_limits."""
SPEAKERS = "speakers_xtts.pth"
"""Coqui's own speakers, who need no recording and speak every language."""
FILES = ("config.json", "model.pth", "vocab.json", SPEAKERS)
BLOCK_TOKENS = 20
"""Tokens per block, 0.9 s of sound; the authors' choice."""
_KNOBS = ("temperature", "length_penalty", "repetition_penalty", "top_k", "top_p", "speed")


class Xtts:
    """The published model in `models`/xtts/v2. Model and outputs are for non-commercial use only (CPML)."""

    name = "xtts"
    rate = 24000
    languages = tuple(LIMITS)
    clones = True

    def __init__(self, models: Path) -> None:
        self._folder = models / "xtts" / "v2"
        self._model: Any = None
        self._studio: tuple[Voice, ...] = ()
        self._known: Conditionals[tuple[Any, Any]] = Conditionals()

    @property
    def version(self) -> str:
        try:
            return version("coqui-tts")
        except PackageNotFoundError:
            return "absent"

    @property
    def voices(self) -> tuple[Voice, ...]:
        """The studio speakers, as soon as their file is there."""
        path = self._folder / SPEAKERS
        if not self._studio and path.is_file():
            try:
                self._studio = tuple(Voice(name) for name in studio.names(path))
            except (OSError, ValueError) as problem:
                log("speakers.not_read", why=problem)
        return self._studio

    def limit(self, language: str) -> int:
        return LIMITS.get(language, 200)

    def missing(self) -> str | None:
        if os.environ.get("COQUI_TOS_AGREED") != "1":
            return (
                "the licence of XTTS v2 (CPML: model and outputs for non-commercial use only) is not accepted; "
                "set COQUI_TOS_AGREED=1"
            )
        absent = [name for name in FILES if not (self._folder / name).is_file()]
        return (
            f"XTTS v2's {', '.join(absent)} not in {self._folder} yet; `hearmeman status` shows the progress"
            if absent
            else None
        )

    def weight_files(self) -> tuple[Path, ...]:
        return (self._folder / "model.pth",)

    def load(self) -> None:
        import torch
        from TTS.tts.configs.xtts_config import XttsConfig

        config = XttsConfig()
        config.load_json(str(self._folder / "config.json"))
        self.adopt(_reader()(config))
        self._model.load_checkpoint(config, checkpoint_dir=str(self._folder), eval=True)
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")

    def adopt(self, model: Any) -> None:
        """Speak with this model, an `Xtts` of coqui-tts."""
        self._model = model

    def unload(self) -> None:
        self._model = None
        self._known.clear()

    def synthesize(self, request: Request, stopped: Callable[[], bool] = never) -> Iterator[Samples]:
        import torch

        latent, speaker = self._study(request.voice)
        # Without a seed every time sounds different, even after a request that had one.
        torch.manual_seed(request.seed) if request.seed is not None else torch.seed()
        knobs = {name: value for name in _KNOBS if (value := getattr(request, name)) is not None}
        for text in self._fitting(request.text, request.language):
            stream = self._model.inference_stream(
                text, request.language, latent, speaker, stream_chunk_size=BLOCK_TOKENS, **knobs
            )
            for block in stream:
                if stopped():
                    return
                yield block.detach().float().cpu().numpy().reshape(-1).astype(np.float32)

    def _study(self, voice: Voice) -> tuple[Any, Any]:
        """What the model hears in the voice's recording: latents for its two parts."""
        if voice.clip is None:
            return self._studied(voice.id)
        clip, config = voice.clip, self._model.config
        settings = {
            "gpt_cond_len": config.gpt_cond_len,
            "gpt_cond_chunk_len": config.gpt_cond_chunk_len,
            "max_ref_length": config.max_ref_len,
            "sound_norm_refs": config.sound_norm_refs,
        }
        # It reads the clip at its own rate, whatever the clip's rate.
        return self._known.get(
            clip, tuple(settings.values()), lambda: self._model.get_conditioning_latents(str(clip), **settings)
        )

    def _studied(self, name: str) -> tuple[Any, Any]:
        """The latents of a studio speaker."""
        if self._model.speaker_manager is None:
            raise Refused(
                "voice",
                f"{SPEAKERS} is not in {self._folder}, and {name!r} has no recording; fetch it with "
                "`hearmeman models fetch`, or choose a voice with a recording",
                "voice_not_found",
            )
        found = self._model.speaker_manager.speakers.get(name)
        if found is None:
            raise Refused("voice", f"{name!r} has no recording and is not a speaker of {SPEAKERS}", "voice_not_found")
        return found["gpt_cond_latent"], found["speaker_embedding"]

    def _fitting(self, text: str, language: str) -> list[str]:
        """The text in parts short enough for the model in tokens: numbers and symbols become words, some of them long."""
        tokens = self._model.tokenizer.encode(text.strip().lower(), lang=language.split("-")[0])
        if len(tokens) < self._model.args.gpt_max_text_tokens or len(text) < 2:
            return [text]
        middle = text.rfind(" ", 1, len(text) // 2 + 1)
        middle = middle if middle > 0 else len(text) // 2
        return [*self._fitting(text[:middle], language), *self._fitting(text[middle:], language)]


def _reader() -> Any:
    """The model's class, except that it leaves its checkpoint unchanged. Xtts rewrites a published checkpoint in place,
    since its configuration is pickled; ours is verified, and may be read-only.
    """
    import torch
    from TTS.tts.models import xtts

    class ReadOnly(xtts.Xtts):  # type: ignore[misc]
        def _load_checkpoint(self, model_path: Path) -> Any:
            with xtts._legacy_safe_globals():
                return torch.load(model_path, map_location="cpu", weights_only=True)["model"]

    return ReadOnly
