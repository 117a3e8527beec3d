#!/usr/bin/env python3
"""Makes the voices that every pod has: spoken by hibari and flite, so that nobody's recording and no licence is in them.

    .venv/bin/python voices/make.py FOLDER

needs the package hibari-tts (tests/test.lock) and Debian's flite. hibari's phases differ from one kind of processor
to another, so what is shipped was made once; tests/voice/test_samples.py makes it again and compares what is heard.
"""

from __future__ import annotations

import io
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 24000
"""Samples a second of what is made."""
LEVEL = 0.6
"""The loudest sample of each."""

TEXTS = {
    "male": (
        "The morning train left a little before seven. By the time we reached the coast, the fog had lifted, "
        "and the whole bay lay open in front of us."
    ),
    "female": (
        "The old harbour was quiet that evening. A few boats rocked against the wall, and somewhere behind the houses "
        "someone was playing the piano."
    ),
    "calm_female": (
        "Take your time, and breathe slowly. There is nothing left to do today; the garden is still, "
        "and the light is fading."
    ),
}
"""Voice -> what it says."""


def resampled(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Bring samples to RATE by way of their spectrum; shape (samples,)."""
    length = round(len(samples) * RATE / rate)
    spectrum = np.fft.rfft(samples)
    wanted = np.zeros(length // 2 + 1, spectrum.dtype)
    kept = min(len(spectrum), len(wanted))
    wanted[:kept] = spectrum[:kept]
    return (np.fft.irfft(wanted, length) * (length / len(samples))).astype(np.float32)


def by_flite(text: str, voice: str) -> NDArray[np.float32]:
    """Speak with one of flite's voices."""
    done = subprocess.run(
        ["flite", "-voice", voice, "-t", text, "-o", "/dev/stdout"], stdout=subprocess.PIPE, check=True
    ).stdout
    # It writes the lengths when it has ended, which a pipe does not take: the samples follow the header.
    with wave.open(io.BytesIO(done)) as sound:
        rate = sound.getframerate()
    return resampled(np.frombuffer(done[44:], "<i2").astype(np.float32) / 32768, rate)


def by_hibari(text: str, speed: float) -> NDArray[np.float32]:
    """Speak with hibari's voice."""
    from hibari import Hibari

    return np.concatenate(
        [np.asarray(block, np.float32) for block in Hibari("heart", threads=1).stream(text, speed, 0)]
    )


def spoken(name: str) -> NDArray[np.float32]:
    """Make one voice: mono, shape (samples,), at RATE, a quarter of a second of silence around it."""
    text = TEXTS[name]
    sound = by_flite(text, "rms") if name == "male" else by_hibari(text, 0.82 if name == "calm_female" else 1.0)
    quiet = np.zeros(RATE // 4, np.float32)
    return np.concatenate([quiet, sound * np.float32(LEVEL / np.abs(sound).max()), quiet])


def write(path: Path, samples: NDArray[np.float32]) -> None:
    """Write a WAV: PCM of 16 bits, mono, RATE."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def main() -> None:
    """Write every voice into the folder that the command line names."""
    folder = Path(sys.argv[1])
    for name in TEXTS:
        write(folder / f"{name}.wav", spoken(name))


if __name__ == "__main__":
    main()
