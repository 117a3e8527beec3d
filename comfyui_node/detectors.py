"""Has ComfyUI list the ONNX files in models/detection."""

import folder_paths

# ComfyUI has the folder "detection" itself and lists only its own kinds of weights there. The packs that load pose
# detectors from it (WanAnimatePreprocess, SCAIL-Pose) leave that as it is: without this, no detector could be chosen.
if "detection" in folder_paths.folder_names_and_paths:
    _places, _endings = folder_paths.folder_names_and_paths["detection"]
    folder_paths.folder_names_and_paths["detection"] = (_places, {*_endings, ".onnx"})
    # A pack that was loaded before may have asked for the list, which ComfyUI keeps until the folder changes.
    folder_paths.filename_list_cache.pop("detection", None)
