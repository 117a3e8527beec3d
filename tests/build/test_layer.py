"""A layer's bytes depend on nothing but its plan."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from hearmeman_build.errors import BuildError
from hearmeman_build.plugins.bytecode import compile_module
from hearmeman_build.plugins.check_layout import check_layout
from hearmeman_build.plugins.image import described, documents, write_layout
from hearmeman_build.plugins.layer import Entry, dir_entry, file_entry, link_entry, write_layer
from support.repository import ROOT

ZSTD = ["/usr/bin/zstd"]


def _plan() -> dict[str, Entry]:
    entries = [
        file_entry("opt/b/two", b"2" * 1000),
        file_entry("opt/a", b"one", 0o4755),
        link_entry("opt/link", "a"),
        dir_entry("tmp", 0o1777),
        Entry("opt/again", "hard", target="opt/b/two"),
    ]
    return {entry.path: entry for entry in entries}


def _members(out: Path) -> list[tarfile.TarInfo]:
    data = subprocess.run([*ZSTD, "-dc", str(out / "layer.tar.zst")], stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


def test_order_of_the_plan_does_not_matter(tmp_path: Path) -> None:
    write_layer(_plan(), tmp_path / "one", "x", ZSTD, 3)
    write_layer(dict(reversed(_plan().items())), tmp_path / "two", "x", ZSTD, 3)

    assert (tmp_path / "one/layer.tar.zst").read_bytes() == (tmp_path / "two/layer.tar.zst").read_bytes()


def test_members_keep_modes_and_hard_links_follow_their_targets(tmp_path: Path) -> None:
    write_layer(_plan(), tmp_path / "out", "x", ZSTD, 3)
    members = _members(tmp_path / "out")

    assert [m.name for m in members] == ["opt", "opt/a", "opt/b", "opt/b/two", "opt/link", "tmp", "opt/again"]
    assert {m.name: m.mode for m in members}["opt/a"] == 0o4755
    assert {m.name: m.mode for m in members}["tmp"] == 0o1777
    assert all(m.mtime == 1 and m.uname == "" for m in members)


def test_content_made_at_its_turn_is_left_out_where_there_is_none(tmp_path: Path) -> None:
    made = {name: Entry(name, "file", make=lambda data=data: data) for name, data in (("a", b"made"), ("b", None))}  # type: ignore[misc]
    write_layer(made, tmp_path / "out", "x", ZSTD, 3)
    assert [(m.name, m.size) for m in _members(tmp_path / "out")] == [("a", 4)]


def _layout(folder: Path) -> Path:
    write_layer(_plan(), folder / "layer", "x", ZSTD, 3)
    layers = described([folder / "layer"])
    write_layout(folder / "image", layers, *documents(layers, {"Env": []}, {}), "smoke")
    return folder / "image"


def test_a_whole_layout_passes_the_check(tmp_path: Path) -> None:
    layout = _layout(tmp_path)

    assert check_layout(layout, ZSTD) == json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]


def test_a_damaged_blob_is_named(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    blob = tmp_path / "layer/layer.tar.zst"
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")

    with pytest.raises(BuildError, match="the store is damaged"):
        check_layout(layout, ZSTD)


def test_a_missing_layer_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="gone is missing from the store"):
        described([tmp_path / "gone"])


def test_bytecode_does_not_depend_on_the_process() -> None:
    source = b"def f(a, b=(1, 2)):\n    return {a: b, 'name': 'name'}\n"
    here = compile_module(source, "/opt/x.py")
    program = (
        "import sys, json, decimal, asyncio, xml.dom.minidom; sys.path.insert(0, 'python');"
        "from hearmeman_build.plugins.bytecode import compile_module;"
        f"sys.stdout.buffer.write(compile_module({source!r}, '/opt/x.py'))"
    )
    root = ROOT
    import sys

    there = subprocess.run([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, check=True).stdout

    assert here == there
    assert compile_module(b"def (:", "/opt/x.py") is None
