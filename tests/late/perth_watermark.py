"""Perth watermarks a second of sound and reads it back; without pkg_resources its class is None."""

import numpy as np
import perth

watermarker = perth.PerthImplicitWatermarker()
sound = np.sin(np.linspace(0, 2000, 16000)).astype(np.float32) * 0.3
marked = watermarker.apply_watermark(sound, sample_rate=16000)
found = watermarker.get_watermark(marked, sample_rate=16000)
assert marked.shape == sound.shape
assert not np.array_equal(marked, sound)
print("perth", float(np.mean(found)))
