"""What our graphs leave out has the value that ComfyUI's page would send: some nodes fail without it, or do something else."""

import inspect
import json
import tomllib

import late_graph as late

from nodes import NODE_CLASS_MAPPINGS

late.load(
    "ComfyUI-WanVideoWrapper", "ComfyUI-KJNodes", "ComfyUI-VideoHelperSuite", "ComfyUI-FlashPortrait", "hearmeman"
)
WIDGETS = ("INT", "FLOAT", "BOOLEAN", "STRING")
HARMLESS = {
    ("VHS_LoadVideo", "format"),  # its page's own AnimateDiff cuts a video's sizes and its number of frames
    ("WanVideoBlockSwap", "block_swap_debug"),
    ("WanVideoBlockSwap", "prefetch_blocks"),
    ("WanVideoBlockSwap", "use_non_blocking"),
    ("WanVideoClipVisionEncode", "ratio"),
}
"""Seen in the nodes' source: left out they mean the same, or what we want."""

index = tomllib.loads((late.WORKFLOWS / "index.toml").read_text())["workflow"]
graphs = {entry["name"]: json.loads((late.WORKFLOWS / entry["file"]).read_text()) for entry in index}
for entry in index:
    for choice in entry.get("choices", {}).values():
        for number, option in enumerate(choice["options"].values()):
            graphs[f"{entry['name']} {number}"] = option.get("nodes", {})

looked, wrong = 0, []
for name, graph in graphs.items():
    for node in graph.values():
        kind = NODE_CLASS_MAPPINGS.get(node["class_type"])
        if not getattr(kind, "RELATIVE_PYTHON_MODULE", "").startswith("custom_nodes."):
            continue
        takes = inspect.signature(getattr(kind, kind.FUNCTION)).parameters
        for key, spec in kind.INPUT_TYPES().get("optional", {}).items():
            if key in node["inputs"] or (node["class_type"], key) in HARMLESS:
                continue
            if not (isinstance(spec[0], list) or spec[0] in WIDGETS):
                continue
            looked += 1
            options = spec[1] if len(spec) > 1 else {}
            page = options.get("default", spec[0][0] if isinstance(spec[0], list) else None)
            code = takes[key].default if key in takes else "nothing"
            if page != code:
                wrong.append(f"{name}: {node['class_type']}.{key} is {code!r}, and {page!r} on the page")
assert looked > 50 and not wrong, (looked, wrong)
print("left out", looked)
