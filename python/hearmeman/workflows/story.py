"""Reads a story: what each shot shows, how it begins and which frames it remembers; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearmeman.errors import UsageError

STEP, MOST, FIXED = 40, 8, 3
"""StoryMem's own: at most 8 memories, the first 3 of which stay; a frame in 40 gives three of a shot of 81."""
CARRIED = {"same": 1, "motion": 5}
"""How a shot continues -> how many frames of the previous shot it begins with; they are not shown twice."""


class StoryError(UsageError):
    """The story cannot be used; nothing was sent."""


@dataclass(frozen=True)
class Memory:
    """One remembered frame."""

    shot: int = 0
    """Counted from 1; 0 if `picture` is given."""
    frame: int = 0
    """Counted from 0; negative counts from the end."""
    picture: Path | None = None
    """The user's own picture."""


@dataclass(frozen=True)
class Shot:
    """One shot."""

    number: int
    """Counted from 1, through all scenes."""
    prompt: str
    begins: str
    """text or image (the first), cut, same or motion."""
    settings: tuple[str, ...]
    """As for --set, for this shot only."""
    memory: tuple[Memory, ...] | None
    """Frames chosen by the user; None: by step."""


@dataclass(frozen=True)
class Story:
    """A whole film."""

    shots: tuple[Shot, ...]
    image: Path | None
    """The first shot's first frame; None: the shot is made from text."""
    settings: tuple[str, ...]
    """As for --set, for all shots."""
    step: int
    """One frame in this many is remembered."""
    most: int
    """The most remembered frames."""


def read(path: Path) -> Story:
    """Read a story in the format of StoryMem, whose scenes may also have `memory` and `settings`, shot by shot.

    Raises:
        StoryError: it is none; names the scene and the shot.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoryError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StoryError(f"{path} is not JSON: {error}") from error
    try:
        return _story(raw, path.parent)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise StoryError(
            f"{path} is not a story: {said}. A story has scenes, and each scene video_prompts and, for each of them, "
            "cut: true or false (docs/research.md)"
        ) from error


def _story(raw: Mapping[str, Any], folder: Path) -> Story:
    going_on = str(raw.get("continue", "same"))
    if going_on not in CARRIED:
        raise ValueError(f"continue is {going_on!r}; it takes {' or '.join(CARRIED)}")
    image = folder / raw["image"] if raw.get("image") else None
    shots: list[Shot] = []
    for count, scene in enumerate(raw["scenes"], start=1):
        where = f"scene {scene.get('scene_num', count)}"
        prompts = scene["video_prompts"]
        cuts = _each(scene, "cut", len(prompts), where, True)
        memories = _each(scene, "memory", len(prompts), where, None)
        settings = _each(scene, "settings", len(prompts), where, {})
        for prompt, cut, memory, own in zip(prompts, cuts, memories, settings, strict=True):
            number = len(shots) + 1
            if not isinstance(prompt, str) or not prompt.strip() or not isinstance(cut, bool):
                raise ValueError(f"{where}, shot {number}: a prompt is words, and cut is true or false")
            first = "image" if image else "text"
            begins = first if number == 1 else "cut" if cut else going_on
            chosen = None if memory is None else tuple(_memory(text, number, folder, where) for text in memory)
            if number == 1 and chosen:
                raise ValueError(f"{where}, shot 1: there is nothing to remember yet; give it no memory")
            shots.append(Shot(number, prompt, begins, _settings(own), chosen))
    if not shots:
        raise ValueError("it has no shots")
    step, most = int(raw.get("memory_step", STEP)), int(raw.get("memory_most", MOST))
    if step < 1 or most < 1:
        raise ValueError("memory_step and memory_most are numbers above 0")
    return Story(tuple(shots), image, _settings(raw.get("settings", {})), step, most)


def _each(scene: Mapping[str, Any], name: str, count: int, where: str, default: Any) -> Sequence[Any]:
    given = scene.get(name)
    if given is None:
        return [default] * count
    if not isinstance(given, list) or len(given) != count:
        raise ValueError(f"{where} has {count} video_prompts: {name} is a list of as many")
    return [default if one is None else one for one in given]


def _settings(given: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in given.items())


def _memory(text: str, number: int, folder: Path, where: str) -> Memory:
    shot, colon, frame = text.partition(":")
    if colon and shot.isdecimal() and frame.lstrip("-").isdecimal():
        if not 1 <= int(shot) < number:
            raise ValueError(f"{where}, shot {number}: {text} is of a shot that does not come before it")
        return Memory(int(shot), int(frame))
    picture = folder / text
    if not picture.is_file():
        raise ValueError(f"{where}, shot {number}: {text} is neither SHOT:FRAME, such as 1:40, nor a picture")
    return Memory(picture=picture)


def remembered(story: Story, shot: Shot, lengths: Mapping[int, int]) -> tuple[Memory, ...]:
    """Which frames of the earlier shots a shot remembers; `lengths` is their frame counts."""
    if shot.begins in ("text", "image"):
        return ()
    if shot.memory:
        return shot.memory
    every = [
        Memory(number, frame) for number in range(1, shot.number) for frame in range(0, lengths[number], story.step)
    ]
    if len(every) <= story.most:
        return tuple(every)
    kept = min(FIXED, story.most - 1)
    return (*every[:kept], *every[kept - story.most :])
