"""What a save holds: nothing outside of its folders, and nobody's change is lost where several pods save."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearmeman.workspace.contents import (
    DamagedError,
    Entry,
    Node,
    Save,
    dump,
    is_safe,
    is_saved,
    merge,
    merged,
    parse,
    superseded,
)

SHA = "a" * 64


def save(**files: int) -> Save:
    entries = {f"user/{name}": Entry(f"{content:064x}", 1, content) for name, content in files.items()}
    return Save(1, "id", "pod", 1.0, ("p",), entries)


def contents(found: Save) -> dict[str, int]:
    return {path.removeprefix("user/"): entry.mtime_ns for path, entry in found.files.items()}


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "after"),
    [
        ({}, {"a": 1}, {}, {"a": 1}),
        ({}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 3}),  # Both changed: the later change.
        ({"a": 1}, {"a": 4}, {"a": 3}, {"a": 4}),
        ({"a": 5}, {"a": 4}, {"a": 5}, {"a": 4}),  # An older file that was put there on purpose.
        ({"a": 1}, {}, {"a": 1}, {}),  # Removed here.
        ({"a": 1}, {}, {"a": 2}, {"a": 2}),  # Removed here, changed there.
        ({"a": 1}, {"a": 1}, {}, {}),  # Removed there.
        ({"a": 1}, {"a": 2}, {}, {"a": 2}),  # Removed there, changed here.
        ({}, {"a": 1}, {"a": 2}, {"a": 2}),  # An old volume does not undo a newer save.
    ],
)
def test_changes_of_both_pods_are_kept(
    base: dict[str, int], ours: dict[str, int], theirs: dict[str, int], after: dict[str, int]
) -> None:
    assert contents(merge(save(**base), save(**ours), save(**theirs), 2)) == after


_FILES = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3))


@given(_FILES, _FILES, _FILES)
def test_what_only_one_pod_touched_is_as_that_pod_has_it(
    base: dict[str, int], ours: dict[str, int], theirs: dict[str, int]
) -> None:
    found = merged(base, ours, theirs, lambda mine, other: mine >= other)
    for name in {*base, *ours, *theirs}:
        if ours.get(name) == base.get(name):
            assert found.get(name) == theirs.get(name)
        elif theirs.get(name) == base.get(name):
            assert found.get(name) == ours.get(name)
        else:
            assert name in found or (name not in ours and name not in theirs)
    assert merged(ours, ours, found, lambda mine, other: True) == found


def test_a_save_comes_back_as_it_was() -> None:
    files = {"user/default/workflows/\u00e4 b.json": Entry(SHA, 3, 5), "input/\udcff.png": Entry(SHA, 0, -1)}
    nodes = {"A-Node": Node("https://example.com/x.git", "b" * 40), "one.py": Node(version="1.0")}
    whole = Save(7, "i", "pod", 2.5, ("h",), files, nodes, {"numpy": "1.0+cu1"})
    assert parse(dump(whole), "x") == whole


@pytest.mark.parametrize(
    "path",
    [
        "../etc/passwd",
        "user/../../x",
        "user/./x",
        "user//x",
        "/user/x",
        "user",
        "user/",
        "models/x.safetensors",
        "custom_nodes/evil/__init__.py",
        "user/a\0b",
        "user/" + "x" * 256,
        "user/" + "d/" * 80 + "x",
        "",
    ],
)
def test_a_path_that_leaves_its_folder_is_refused(path: str) -> None:
    assert not is_safe(path)
    with pytest.raises(DamagedError, match="which no save of a workspace holds"):
        parse(dump(Save(1, files={path: Entry(SHA, 1, 1)})), "x")


@pytest.mark.parametrize(
    "changed",
    [
        {"nodes": {"../x": asdict(Node())}},
        {"nodes": {".git": asdict(Node())}},
        {"nodes": {"-rf": asdict(Node())}},
        {"nodes": {"x": asdict(Node("file:///etc", "b" * 40))}},
        {"nodes": {"x": asdict(Node("https://u:p@example.com/x", "b" * 40))}},
        {"nodes": {"x": asdict(Node("https://example.com/x", "--upload-pack=x"))}},
        {"packages": {"--index-url=http://x": "1"}},
        {"packages": {"a b": "1"}},
        {"packages": {"git+https://x": "1"}},
        {"packages": {"a": "1; evil"}},
        {"files": {"user/a": {"sha256": "../x", "size": 1, "mtime_ns": 1}}},
        {"files": {"user/a": {"sha256": SHA, "size": -1, "mtime_ns": 1}}},
        {"files": {"user/a": {"sha256": SHA, "size": 1, "mtime_ns": 2**70}}},
        {"pod": "\x1b[2J"},
        {"files": []},
        {"number": "x"},
        {"id": None, "files": None},
    ],
)
def test_what_nobody_saves_is_refused(changed: dict[str, object]) -> None:
    raw = json.loads(dump(Save(1, "i"))) | changed
    with pytest.raises(DamagedError):
        parse(json.dumps(raw).encode(), "x")


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("user/default/comfy.settings.json", True),
        ("user/default/workflows/.index.json", True),
        ("user/default/workflows/a.json", True),
        ("user/__manager/config.ini", True),
        ("input/photo.png", True),
        ("user/comfyui.log", False),
        ("user/comfyui_8188.prev.log", False),
        ("user/comfyui_8188.prev2.log", False),
        ("user/comfyui.db", False),
        ("user/__manager/cache/list.json", False),
        ("user/default/ComfyUI-Manager/startup-scripts/install-scripts.txt", False),
        ("input/.hearmeman-0011", False),
        ("input/x.mp4.part", False),
    ],
)
def test_what_belongs_to_a_workspace(path: str, wanted: bool) -> None:
    assert is_saved(path) is wanted


def test_the_last_saves_and_one_of_each_day_are_kept() -> None:
    day = 86400.0
    now = 100 * day
    made = [(number, number * day / 10) for number in range(1, 1000)]
    gone = superseded(made, now, last=20, days=30)
    kept = sorted({number for number, _ in made} - set(gone))
    assert kept[-20:] == list(range(980, 1000))
    assert len(kept) == 20 + 28
    assert superseded(made[:20], now) == []
