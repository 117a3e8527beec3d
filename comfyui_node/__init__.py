"""Shows hearmeman's workflows among the templates of ComfyUI's own page, and has it list ONNX files; brings no node class."""

import folder_paths

NODE_CLASS_MAPPINGS: dict[str, type] = {}
WEB_DIRECTORY = "./web"

# ComfyUI has the folder "detection" itself and lists only its own kinds of weights there. The packs that load pose
# detectors from it (WanAnimatePreprocess, SCAIL-Pose) leave that as it is: without this, no detector could be chosen.
if "detection" in folder_paths.folder_names_and_paths:
    _places, _endings = folder_paths.folder_names_and_paths["detection"]
    folder_paths.folder_names_and_paths["detection"] = (_places, {*_endings, ".onnx"})
