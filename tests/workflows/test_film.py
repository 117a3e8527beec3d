"""A film of a story: each shot remembers those before, a failure ends it, and a resumed run makes nothing twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import film_comfyui
from fakes.comfyui import ComfyUI, comfyui
from hearmeman.cli import main
from hearmeman.workflows import pictures, story
from support.media import picture
from support.repository import ROOT

FOLDER = ROOT / "workflows"
SMALL = {"width": 96, "height": 64, "frames": 9, "seed": 10}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    base = tmp_path_factory.mktemp("comfyui")
    with comfyui(base, write_seconds=0.02, main=Path(film_comfyui.__file__)) as running:
        yield running


def written(folder: Path, **more: Any) -> Path:
    cuts = [True, True, False]
    scenes = [
        {"scene_num": 1, "video_prompts": ["a street", "a door", "it opens"], "cut": cuts} | more.pop("scene", {})
    ]
    path = folder / "story.json"
    path.write_text(json.dumps({"story_name": "s", "scenes": scenes, "settings": SMALL, "memory_step": 4} | more))
    return path


def film(server: ComfyUI, path: Path, out: Path, *more: str) -> int:
    words = ["workflows", "batch", "storymem", str(path), "--out", str(out), "--url", server.url, "--dir", str(FOLDER)]
    return main([*words, *more], {})


def seen(server: ComfyUI) -> list[dict[str, Any]]:
    """What the node that saves a film was given, shot by shot."""
    path = server.base / "seen.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def find(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return (
            value[key] if key in value else next((f for v in value.values() if (f := find(v, key)) is not None), None)
        )
    return None


def colour(path: Path, number: int) -> tuple[int, ...]:
    """A frame's first pixel."""
    words = ["-vf", f"select=eq(n\\,{number})", "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(["ffmpeg", "-v", "error", "-i", str(path), *words], capture_output=True, check=True)
    return tuple(done.stdout[:3])


def test_each_shot_remembers_those_before_and_all_are_one_film(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, out = len(seen(server)), tmp_path / "out"
    assert film(server, written(tmp_path), out, "--set", "steps=4", "--set", "strength=1.1") == 0
    assert str(out / "film.mp4") in capsys.readouterr().out
    first, cut, same = seen(server)[before:]
    assert find(first, "embeds") is None and find(first, "start_image") is None and find(first, "lora") is None
    # Frames 0, 4 and 8 of the first shot, whole; then those of both.
    assert find(cut, "memory_images")["image"]["is"] == {"width": 96, "height": 64, "nb_read_packets": "3"}
    assert find(cut, "start_image") is None and find(cut, "strength") == 1.1
    assert find(same, "memory_images")["image"]["is"]["nb_read_packets"] == "6"
    assert find(same, "start_image")["image"]["is"]["nb_read_packets"] == "1"
    assert [find(one, "seed") for one in (first, cut, same)] == [10, 11, 12]
    memory = Path(find(same, "memory_images")["image"]["file"])
    assert [abs(colour(memory, 0)[0] - 10) < 4, abs(colour(memory, 3)[0] - 11) < 4] == [True, True]
    # The frame that a shot went on from is not shown twice.
    assert pictures.count(out / "film.mp4") == 9 + 9 + 8


def test_a_resumed_film_makes_only_what_is_missing_or_remembers_something_else(server: ComfyUI, tmp_path: Path) -> None:
    path, out = written(tmp_path), tmp_path / "out"
    assert film(server, path, out) == 0
    count = len(seen(server))
    assert film(server, path, out) == 2
    (out / "film.mp4").unlink()
    assert film(server, path, out, "--resume") == 0
    assert len(seen(server)) == count and (out / "film.mp4").exists()
    changed = written(tmp_path, scene={"settings": [None, {"seed": 77}, None]})
    assert film(server, changed, out, "--resume") == 0
    # The third shot remembers the second, and is made anew with it; the first is not.
    assert len(seen(server)) == count + 2


def test_a_shot_that_fails_ends_the_film_and_the_next_run_goes_on_there(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count, out = len(seen(server)), tmp_path / "out"
    broken = written(tmp_path, scene={"settings": [{"seed": 90}, {"seed": 666}, None]})
    assert film(server, broken, out) == 3
    said = capsys.readouterr().err
    assert "shot 2 of 3 failed" in said and "run the same command with --resume to continue there" in said
    assert len(seen(server)) == count + 1 and not (out / "film.mp4").exists()
    (server.base / "mended").touch()
    assert film(server, broken, out, "--resume") == 0
    assert len(seen(server)) == count + 3


def test_a_story_is_corrected_as_advised(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hero, path = picture(tmp_path), os.environ["PATH"]
    tools = tmp_path / "bin"
    tools.mkdir()
    one = {"video_prompts": ["a street"], "cut": [True]}
    for scene, more, advice in (
        (one | {"memory": [[hero.name]]}, (), "there is nothing to remember yet; give it no memory"),
        (one, ("--set", "format=webp"), "give format=mp4"),
        (one, ("--set", "format=mp4"), "ffprobe is not on this machine; install ffmpeg"),
    ):
        monkeypatch.setenv("PATH", str(tools) if "ffmpeg" in advice else path)
        assert film(server, written(tmp_path, scene=scene), tmp_path / "out", *more) in (1, 2)
        assert advice in capsys.readouterr().err
    for name in ("ffmpeg", "ffprobe"):
        (tools / name).symlink_to(shutil.which(name, path=path) or "")
    assert film(server, written(tmp_path, scene=one), tmp_path / "out", *more, "--resume") == 0


def test_a_first_picture_memories_by_hand_and_motion(server: ComfyUI, tmp_path: Path) -> None:
    count, hero = len(seen(server)), picture(tmp_path)
    scene = {"memory": [None, ["1:2", hero.name], ["1:-1"]]}
    path = written(tmp_path, image=hero.name, scene=scene, **{"continue": "motion"})
    assert film(server, path, tmp_path / "out", "--set", "seed=30") == 0
    first, cut, motion = seen(server)[count:]
    assert find(first, "start_image") and find(first, "memory_images") is None and find(first, "lora") is None
    assert find(cut, "memory_images")["image"]["is"]["nb_read_packets"] == "2"
    assert find(motion, "memory_images")["image"]["is"]["nb_read_packets"] == "1"
    assert find(motion, "start_image")["image"]["is"]["nb_read_packets"] == "5"
    assert pictures.count(tmp_path / "out" / "film.mp4") == 9 + 9 + 4


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"scene": {"cut": [True]}}, "scene 1 has 3 video_prompts: cut is a list of as many"),
        ({"scene": {"memory": [None, ["2:1"], None]}}, "2:1 is of a shot that does not come before it"),
        ({"scene": {"memory": [None, ["gone.png"], None]}}, "gone.png is neither SHOT:FRAME"),
        ({"scene": {"settings": [None, {"widht": 1}, None]}}, "shot 2: storymem has no input widht"),
        ({"scene": {"settings": [None, None, {"frames": 10}]}}, "shot 3: .*10 is not 4n\\+1"),
        ({"image": "gone.png"}, "gone.png does not exist"),
        ({"continue": "smooth"}, "it takes same or motion"),
        ({"scenes": []}, "it has no shots"),
        ({"scenes": [{}]}, "it has no 'video_prompts'"),
    ],
)
def test_a_story_that_cannot_be_made_is_explained_before_the_first_shot(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: dict[str, Any], words: str
) -> None:
    count = len(seen(server))
    assert film(server, written(tmp_path, **more), tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert re.search(words, said), said
    assert len(seen(server)) == count


def test_what_is_remembered_keeps_the_first_and_the_latest() -> None:
    shots = tuple(story.Shot(n, "p", "text" if n == 1 else "cut", (), None) for n in range(1, 6))
    told = story.Story(shots, None, (), 40, 5)
    kept = story.remembered(told, shots[4], dict.fromkeys(range(1, 5), 81))
    assert [(m.shot, m.frame) for m in kept] == [(1, 0), (1, 40), (1, 80), (4, 40), (4, 80)]
    assert story.remembered(told, shots[0], {}) == ()
