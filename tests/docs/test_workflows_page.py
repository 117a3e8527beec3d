"""docs/workflows.md: every command on the page is understood, and those that run something reach ComfyUI."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.comfyui import ComfyUI, comfyui
from hearmeman.cli import main
from hearmeman.models import catalogue
from support.media import picture
from support.repository import ROOT

PAGE = (ROOT / "docs/workflows.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ {4}hearmeman (workflows .+)$", PAGE, re.MULTILINE)
POD = "https://POD-8188.proxy.runpod.net"
MINE = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "positive": ["6", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a house"}},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    with comfyui(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


def test_the_page_has_commands_of_each_kind() -> None:
    assert {line.split()[1] for line in COMMANDS} >= {"list", "show", "run", "batch", "check", "rerun"}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_is_right(
    line: str,
    server: ComfyUI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The stand-in has none of the models' nodes: what was asked rightly comes as far as its refusal, and no less far."""
    monkeypatch.chdir(tmp_path)
    picture(tmp_path).rename("cat.png")
    Path("jobs.csv").write_text("prompt,seed\na red house,1\na blue house,2\n")
    Path("mine.json").write_text(json.dumps(MINE))
    words = shlex.split(line, comments=True)
    environ = {"COMFYUI_URL": server.url, "VOLUME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    environ |= {"MODEL_CATALOGUE": catalogue.__file__.replace(".py", ".toml")}
    words = [server.url if word == POD else word for word in words]
    where = [] if words[1] == "rerun" else ["--dir", str(ROOT / "workflows")]
    code = main([*words, *where], environ)
    said = capsys.readouterr()
    if words[1] in ("list", "show", "check"):
        assert code == 0, said.err
    elif words[1] == "rerun":
        # Without a bucket, and without that picture, it goes no further.
        assert code == 1 or code == 2, said.err
        assert "R2_" in said.err or "picture.png" in said.err, said.err
    else:
        assert code == (3 if words[1] == "batch" else 1), said.err
        assert "which this ComfyUI does not have" in said.err
