"""CONTRIBUTING.md's map has every place of the repository, and no place that is gone."""

from __future__ import annotations

import re

from hearmeman_build.flake import files
from support.repository import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TRACKED = files(ROOT)


def test_every_top_folder_and_package_is_on_the_map() -> None:
    tops = {name.split("/")[0] for name in TRACKED if "/" in name} - {"python"}
    packages = {"/".join(name.split("/")[:2]) for name in TRACKED if name.startswith("python/")}
    assert [place for place in sorted(tops | packages) if f"`{place}/`" not in TEXT] == []


def test_every_room_of_the_pod_is_on_the_map() -> None:
    rooms = {name.split("/")[2] for name in TRACKED if re.match(r"python/hearmeman/\w+/", name)}
    assert [room for room in sorted(rooms) if f"| `{room}/` |" not in TEXT] == []


def test_what_is_on_the_map_is_there() -> None:
    named = set(re.findall(r"`((?:python|nix|tests|docs|workflows|comfyui_node|voices)/[\w./-]*)`", TEXT))
    assert len(named) > 20
    assert [place for place in sorted(named) if "NAME" not in place and not (ROOT / place).exists()] == []
