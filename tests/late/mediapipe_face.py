"""controlnet_aux's face module imports whole: its node registers even where this fails."""

import sys

sys.path.insert(0, "/opt/comfyui-nodes/comfyui_controlnet_aux/src")
import numpy as np
from custom_controlnet_aux.mediapipe_face import mediapipe_face_common as face

assert callable(face.generate_annotation)
from mediapipe.tasks.python.vision import drawing_utils

canvas = np.zeros((8, 8, 3), dtype=np.uint8)
assert callable(drawing_utils.draw_landmarks)
print("mediapipe_face", canvas.shape)
