"""How long a text's speech may be, and what is cut off its end: sampling engines sometimes continue after the text is
done.
"""

import numpy as np

from hearmeman_voice.engine import Samples

_SLOWEST = 0.18
"""Seconds per character in alphabetic scripts: two and a half times slower than people speak."""
_SLOWEST_SIGN = 0.6
"""Seconds per character where each is a syllable or a word."""
_FRAME = 0.02
_QUIET = 0.006
"""Loudness (root mean square of a frame) below which a frame is silence: 44 dB below full scale."""
_KEPT = 0.2
"""Seconds of silence kept at the end."""
_GAP = 0.8
_BLIP = 0.35
"""A sound this short, after a gap this long, at the very end, does not belong to the text."""


def longest(text: str) -> float:
    """The most seconds a text can take, at normal speed."""
    signs = sum(1 for character in text if "\u3040" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7af")
    return 1.5 + _SLOWEST_SIGN * signs + _SLOWEST * (len(text) - signs)


def trim(samples: Samples, rate: int) -> Samples:
    """The speech without trailing silence, and without a lone blip after a long silence."""
    frame = int(rate * _FRAME)
    count = len(samples) // frame
    loud = (
        np.sqrt(np.mean(np.square(samples[: count * frame].reshape(count, frame)), axis=1)) > _QUIET
        if count
        else np.zeros(0)
    )
    heard = np.flatnonzero(loud)
    if not len(heard):
        return samples
    gaps = np.flatnonzero(np.diff(heard) * _FRAME > _GAP)
    if len(gaps) and (heard[-1] - heard[gaps[-1] + 1] + 1) * _FRAME < _BLIP:
        heard = heard[: gaps[-1] + 1]
    return samples[: min(len(samples), (int(heard[-1]) + 1) * frame + int(rate * _KEPT))]
