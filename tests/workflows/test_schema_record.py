"""node-schema.json made from /object_info: what ComfyUI says in either spelling comes out as our schema has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.comfyui import ComfyUI, comfyui
from hearmeman.cli import main
from hearmeman.workflows import record, schema
from support.repository import ROOT

FILE = ROOT / "workflows" / schema.FILE
WHOLE = json.loads(FILE.read_text(encoding="utf-8"))
FOLDERS = [
    {
        "name": name,
        "folders": [f"/workspace/ComfyUI/{place}" for place in places] or ["/elsewhere"],
        "extensions": WHOLE["model_extensions"][name],
    }
    for name, places in WHOLE["model_folders"].items()
    if name in WHOLE["model_extensions"]
]
"""What the ComfyUI of our schema would say of its folders."""
FILES = {"checkpoints": ["a.safetensors"], "loras": ["b.safetensors"]}


def said(spec: Any, new: bool) -> Any:
    """An input as /object_info says it, in the old spelling or in that of V3 nodes."""
    if isinstance(spec, str):
        return [spec, {}]
    if isinstance(spec, list) and schema.kind_of(spec):
        names = ("default", "min", "max", "step")
        return [spec[0], {name: value for name, value in zip(names, spec[1:], strict=False) if value is not None}]
    if isinstance(spec, list):
        return ["COMBO", {"options": spec}] if new else [spec, {"tooltip": "x"}]
    if spec.get("folder") == "input":
        return [["example.png"], {"image_upload": True}]
    if "folder" in spec:
        listed = [*spec.get("fixed", ()), *(FILES.get(spec["folder"], ()) if isinstance(spec["folder"], str) else ())]
        return ["COMBO", {"options": listed}] if new else [listed]
    if "combo_n" in spec:
        return [[*spec["first"], *(f"value {number}" for number in range(spec["combo_n"] - len(spec["first"])))]]
    if "remote" in spec:
        return ["COMBO", {"remote": {"route": "/x"}, "options": []}]
    if "dynamic_combo" in spec:
        options = [
            {
                "key": key,
                "inputs": {kind: {n: said(s, True) for n, s in inputs.items()} for kind, inputs in groups.items()},
            }
            for key, groups in spec["dynamic_combo"].items()
        ]
        return ["COMFY_DYNAMICCOMBO_V3", {"options": options}]
    return ["COMFY_AUTOGROW_V3", {"template": spec["autogrow"]}]


def object_info(new: bool) -> dict[str, Any]:
    """What the ComfyUI of our schema would answer."""
    made = {}
    for name, node in WHOLE["nodes"].items():
        lists = node.get("output_is_list", [])
        made[name] = {
            "input": {k: {n: said(s, new) for n, s in group.items()} for k, group in node["inputs"].items()},
            "output": node["outputs"],
            "output_name": node.get("output_names", node["outputs"]),
            "output_is_list": [number in lists for number in range(len(node["outputs"]))],
            "output_node": node.get("output_node", False),
            "category": node["category"],
            "python_module": node["module"],
            **{key: True for key in ("experimental", "deprecated", "api_node", "is_input_list") if node.get(key)},
        }
    return made


@pytest.mark.parametrize("new", [False, True])
def test_a_running_comfyui_gives_the_schema_that_we_have(new: bool) -> None:
    made = record.recorded(object_info(new), FILES, FOLDERS, "0.33.0", WHOLE)
    assert record.changes(WHOLE["nodes"], made["nodes"]) == []
    assert made["from_source"] == [] and made["comfyui_version"] == "0.33.0"
    assert [made[key] for key in ("model_folders", "model_extensions")] == [
        WHOLE[key] for key in ("model_folders", "model_extensions")
    ]


def test_what_came_and_went_and_changed_is_named() -> None:
    info = object_info(False)
    info["Newcomer"] = {
        "input": {"required": {"ckpt_name": [[]], "lora": [["None", "b.safetensors"]], "n": ["INT", {"default": 1}]}},
        "output": ["MODEL"],
        "python_module": "custom_nodes.X",
    }
    del info["KSampler"]
    info["VAEDecode"]["input"]["required"]["tile"] = ["INT", {"default": 1, "min": 0, "max": 4}]
    made = record.recorded(info, FILES, FOLDERS, "0.34.0", WHOLE)
    assert record.changes(WHOLE["nodes"], made["nodes"]) == ["+ Newcomer", "- KSampler", "~ VAEDecode: inputs"]
    new = made["nodes"]["Newcomer"]["inputs"]["required"]
    assert new == {
        "ckpt_name": {"folder": "checkpoints"},
        "lora": {"fixed": ["None"], "folder": "loras"},
        "n": ["INT", 1],
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    with comfyui(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


def test_the_command_writes_beside_and_says_what_changed(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["workflows", "schema", "--dir", str(FILE.parent), "--url", server.url, "--json"]
    assert main([*words, "--check", "--out", str(tmp_path / "a.json")], {}) == 1
    assert list(tmp_path.iterdir()) == []
    assert "- KSampler" in json.loads(capsys.readouterr().out)["changes"]
    assert main([*words, "--out", str(tmp_path / "no/a.json")], {}) == 1
    assert "give another place with --out" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "a.json")], {}) == 0
    assert "EmptyImage" in schema.read(tmp_path / "a.json").nodes
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
