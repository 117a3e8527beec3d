"""ComfyUI's flags are read from its parser, and the tuner is checked against them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hearmeman.tune.flags import PACKAGED, check, load_flags
from hearmeman.tune.tuner import OTHER_ARGUMENTS, ROWS
from hearmeman_build.errors import BuildError
from hearmeman_build.tuner_flags import read_flags, write_flags

PARSER = """
import argparse, enum
import comfy.options

class Method(enum.Enum):
    NONE = "none"
    AUTO = "auto"

parser = argparse.ArgumentParser()
parser.add_argument("--listen", type=str, default="127.0.0.1", nargs="?", const="0.0.0.0,::")
parser.add_argument("--preview", type=Method, default=Method.NONE, choices=list(Method))
parser.add_argument("--fast", nargs="*", type=Method)
group = parser.add_mutually_exclusive_group()
group.add_argument("--cpu", action="store_true")
group.add_argument("--lowvram", action="store_true")
%s
args = parser.parse_args() if comfy.options.args_parsing else parser.parse_args([])
"""
TAKEN = "\n".join(
    f'parser.add_argument("{flag}", type=float)' if "headroom" in flag or "reserve" in flag or "lru" in flag
    else f'parser.add_argument("{flag}", action="store_true")'
    for flag in sorted({text.split()[0] for text in (*(t for r in ROWS for t in r[3]), *OTHER_ARGUMENTS)} - {"--cpu"})
)  # fmt: skip


def source(folder: Path, more: str = TAKEN) -> Path:
    """A ComfyUI that has nothing but its parser."""
    (folder / "comfy").mkdir()
    (folder / "comfy/options.py").write_text("args_parsing = False\n")
    (folder / "comfy/cli_args.py").write_text(PARSER % more)
    (folder / "comfyui_version.py").write_text('__version__ = "0.99.1"\n')
    return folder


def test_flags_are_read_as_the_packaged_ones_are_written(tmp_path: Path) -> None:
    to = tmp_path / "cli-flags.json"
    count = write_flags(source(tmp_path), "abc", to)
    content = json.loads(to.read_text())
    assert (content["comfyui_rev"], content["comfyui_version"]) == ("abc", "0.99.1")
    assert len(content["options"]) == count
    packaged = json.loads(PACKAGED.read_text())
    assert set(content) == set(packaged)
    assert {frozenset(option) for option in content["options"]} == {frozenset(o) for o in packaged["options"]}
    known = load_flags(to)
    assert known["--cpu"].excludes == {"--lowvram"}
    assert known["--fast"].choices == ("none", "auto")
    assert check("--preview auto --listen", known)[1] == ["COMFYUI_ARGS: --listen is set by boot: use COMFYUI_HOST"]


def test_a_comfyui_that_lost_a_flag_of_the_tuner_is_refused(tmp_path: Path) -> None:
    lost = "\n".join(line for line in TAKEN.splitlines() if "--disable-mmap" not in line)
    to = tmp_path / "cli-flags.json"
    with pytest.raises(BuildError, match="--disable-mmap is not a flag of ComfyUI"):
        write_flags(source(tmp_path, lost), "abc", to)
    assert not to.exists()


def test_what_is_no_comfyui_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="holds no comfy/cli_args.py"):
        read_flags(tmp_path, "abc")
    broken = source(tmp_path, "import torch_that_is_not_here")
    with pytest.raises(BuildError, match="torch_that_is_not_here"):
        read_flags(broken, "abc")
