"""hibari speaks through the servers' own class: the package, onnxruntime and PyAV load in the environment without torch."""

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, "/opt/hearmeman/voice")

import numpy as np

from hearmeman_voice import audio
from hearmeman_voice.engine import Request, Spec

assert find_spec("torch") is None
engine = Spec("hibari", models=Path("/nowhere")).make()
assert engine.missing() is None
engine.load()
sound = np.concatenate(list(engine.synthesize(Request("The image speaks.", engine.voices[0], "en"))))
sizes = {}
for name in audio.FORMATS:
    encoder = audio.Encoder(name, engine.rate)
    sizes[name] = len(encoder.write(sound) + encoder.finish())
assert all(sizes.values()), sizes
assert 0.5 < len(sound) / engine.rate < 5
print("hibari", engine.version, sizes)
