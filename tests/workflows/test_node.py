"""What our node changes in ComfyUI's own process: which files its lists show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.repository import ROOT

ENDINGS = [".pt", ".safetensors"]


@pytest.mark.parametrize("named", ["detection", "loras"])
def test_detectors_can_be_chosen_and_no_other_list_grows(named: str, tmp_path: Path) -> None:
    """ComfyUI keeps one set of endings for all of its folders: only that of "detection" may change."""
    module = f"shared = set({ENDINGS})\nfolder_names_and_paths = {{'{named}': (['/models/{named}'], shared)}}\n"
    (tmp_path / "folder_paths.py").write_text(
        f"{module}filename_list_cache = {{'{named}': (['old.bin'], {{}}, 0.0)}}\n"
    )
    ask = "import json, folder_paths as f, detectors; print(json.dumps(f.folder_names_and_paths, default=sorted), sorted(f.shared), *f.filename_list_cache)"
    environ = {"PYTHONPATH": f"{tmp_path}:{ROOT}/comfyui_node", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", ask], env=environ, capture_output=True, text=True, check=True)
    folders, shared = done.stdout.strip().split("} ")
    places, endings = json.loads(folders + "}")[named]
    assert places == [f"/models/{named}"]
    assert endings == sorted([*ENDINGS, ".onnx"] if named == "detection" else ENDINGS)
    # A list that was asked for before is asked for again.
    assert shared == str(sorted(ENDINGS)) + ("" if named == "detection" else f" {named}")
