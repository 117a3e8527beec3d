"""What a build says while it runs, and how many layers it builds at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hearmeman_build import progress
from hearmeman_build.build import Image, build_output
from hearmeman_build.errors import BuildError


@pytest.mark.parametrize(
    ("processors", "available", "expected"),
    [(2, 24 << 30, 2), (16, 8 << 30, 8), (16, 64 << 30, 16), (8, 100 << 20, 1), (1, 0, 1)],
)
def test_as_many_layers_at_once_as_processors_and_memory_allow(processors: int, available: int, expected: int) -> None:
    assert progress.jobs(processors, available) == expected


def test_memory_is_what_the_kernel_says_is_available(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 24 kB\nMemAvailable:   2048 kB\n")
    assert progress.available_memory(tmp_path / "meminfo") == 2 << 20
    assert progress.available_memory() > 0


def _event(**fields: object) -> str:
    return "@nix " + json.dumps(fields)


def test_each_layer_is_named_when_it_is_done_and_while_it_takes_long() -> None:
    now, said = [0.0], list[str]()
    reader = progress.Reader(said.append, lambda: now[0])
    drv = "/nix/store/hq4w6k0klwlymr69wzhm9f6c1m0i8bwj-layer-environment-base-1.drv"
    reader.feed(_event(action="start", id=1, level=0, text="", type=104))
    reader.feed(_event(action="result", id=1, type=105, fields=[0, 12, 1, 0]))
    reader.feed(_event(action="start", id=2, level=3, text="", type=105, fields=[drv, "", 1, 1]))
    now[0] = 41
    reader.waiting()
    now[0] = 65
    reader.feed(_event(action="stop", id=2))
    reader.feed(_event(action="msg", level=0, msg="\x1b[31;1merror:\x1b[0m it broke"))
    assert said == [
        "  0 of 12  building layer-environment-base-1 (41 s)",
        "  1 of 12  layer-environment-base-1: 65 s",
    ]
    assert reader.said == ["error: it broke"]


def test_a_real_build_is_followed_line_by_line(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    build_output("layer-comfyui-standin", "--rebuild")
    assert "  1 of 1  layer-comfyui-standin: " in capsys.readouterr().err


def test_a_failed_build_says_what_the_builder_said() -> None:
    fetch = (
        'builder = "builtin:fetchurl"; system = "builtin"; url = "file:///gone"; unpack = false; executable = false;'
    )
    hashed = f'outputHash = "sha256-{"A" * 43}="; outputHashMode = "flat"; outputHashAlgo = "sha256";'
    with pytest.raises(BuildError, match=r"nix build failed:[\s\S]*fails: .*unable to download 'file:///gone'"):
        progress.build(["--impure", "--no-link", "--expr", f'derivation {{ name = "fails"; {fetch} {hashed} }}'])
