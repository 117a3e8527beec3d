"""The engines that need no weights speak through the servers' own classes: hibari in every format, flite and espeak-ng."""

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, "/opt/hearmeman/voice")

import numpy as np

from hearmeman_voice import audio
from hearmeman_voice.engine import Request, Spec

assert find_spec("torch") is None
versions = {}
for name in ("hibari", "flite", "espeak"):
    engine = Spec(name, models=Path("/nowhere")).make()
    assert engine.missing() is None, engine.missing()
    engine.load()
    for voice in engine.voices:
        sound = np.concatenate(list(engine.synthesize(Request("The image speaks.", voice, "en"))))
        assert 0.5 < len(sound) / engine.rate < 5 and np.abs(sound).max() > 0.1, (name, voice)
        if name == "hibari":
            for format in audio.FORMATS:
                encoder = audio.Encoder(format, engine.rate)
                assert len(encoder.write(sound) + encoder.finish()) > 1000, format
    versions[name] = engine.version
print(*(f"{name} {version}" for name, version in versions.items()))
