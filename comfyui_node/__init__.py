"""Shows hearmeman's workflows among the templates of ComfyUI's own page, and the pose models to the nodes that load them.

It brings no node class.
"""

import folder_paths

NODE_CLASS_MAPPINGS: dict[str, type] = {}
WEB_DIRECTORY = "./web"

# ComfyUI lists models/detection by the endings of PyTorch's files alone, and the pose models there are ONNX files.
_places, _endings = folder_paths.folder_names_and_paths.get("detection", ([], set()))
if _endings:
    folder_paths.folder_names_and_paths["detection"] = (_places, {*_endings, ".onnx"})
