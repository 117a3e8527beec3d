"""hearmeman's own nodes, MVInverse and Genfocus, and its workflows among the templates of ComfyUI's page."""

import folder_paths

from .genfocus_nodes import AllInFocus, GenfocusModel, Refocus
from .mvinverse_nodes import MVInverseMaps, MVInverseModel

NODE_CLASS_MAPPINGS: dict[str, type] = {
    "HearmemanAllInFocus": AllInFocus,
    "HearmemanGenfocusModel": GenfocusModel,
    "HearmemanMVInverse": MVInverseMaps,
    "HearmemanMVInverseModel": MVInverseModel,
    "HearmemanRefocus": Refocus,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "HearmemanAllInFocus": "Genfocus: all in focus",
    "HearmemanGenfocusModel": "Genfocus: load FLUX.1-dev and its LoRAs",
    "HearmemanMVInverse": "MVInverse: albedo, metallic, roughness, normals, shading",
    "HearmemanMVInverseModel": "MVInverse: load",
    "HearmemanRefocus": "Genfocus: refocus",
}
WEB_DIRECTORY = "./web"

# ComfyUI has the folder "detection" itself and lists only its own kinds of weights there. The packs that load pose
# detectors from it (WanAnimatePreprocess, SCAIL-Pose) leave that as it is: without this, no detector could be chosen.
if "detection" in folder_paths.folder_names_and_paths:
    _places, _endings = folder_paths.folder_names_and_paths["detection"]
    folder_paths.folder_names_and_paths["detection"] = (_places, {*_endings, ".onnx"})
