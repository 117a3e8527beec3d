"""hearmeman's own nodes, for FlashPortrait, Genfocus and MVInverse, and its workflows among the templates of ComfyUI's page."""

from . import detectors as detectors
from .flashportrait_nodes import FlashPortraitFace
from .genfocus_nodes import AllInFocus, GenfocusModel, Refocus
from .mvinverse_nodes import MVInverseMaps, MVInverseModel

NODE_CLASS_MAPPINGS: dict[str, type] = {
    "HearmemanAllInFocus": AllInFocus,
    "HearmemanFlashPortraitFace": FlashPortraitFace,
    "HearmemanGenfocusModel": GenfocusModel,
    "HearmemanMVInverse": MVInverseMaps,
    "HearmemanMVInverseModel": MVInverseModel,
    "HearmemanRefocus": Refocus,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "HearmemanAllInFocus": "Genfocus: all in focus",
    "HearmemanFlashPortraitFace": "FlashPortrait: its face in WanVideoWrapper",
    "HearmemanGenfocusModel": "Genfocus: load FLUX.1-dev and its LoRAs",
    "HearmemanMVInverse": "MVInverse: albedo, metallic, roughness, normals, shading",
    "HearmemanMVInverseModel": "MVInverse: load",
    "HearmemanRefocus": "Genfocus: refocus",
}
WEB_DIRECTORY = "./web"
