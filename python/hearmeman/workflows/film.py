"""A film from a story: shot after shot, each with its memory of earlier shots; resumable after any interruption."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from hearmeman.errors import HearmemanError
from hearmeman.workflows import batch, pictures, story
from hearmeman.workflows.client import Client
from hearmeman.workflows.library import Graph, Workflow

FILM = "film.mp4"
_FILMS = (".mp4", ".webm", ".mkv", ".mov")

Make = Callable[[list[str]], tuple[Graph, dict[tuple[str, str], Path]]]
"""Returns the graph and files for settings."""


def suits(workflow: Workflow) -> None:
    """Tell whether a workflow makes shots of a story.

    Raises:
        StoryError: it does not.
    """
    if (
        not {"memory", "remember", "image", "video", "seed", "format"} <= set(workflow.inputs)
        or "shot" not in workflow.choices
    ):
        raise story.StoryError(f"{workflow.name} makes no shots of a story: `workflows batch storymem STORY.json` does")


def makes_film(workflow: Workflow, graph: Graph) -> bool:
    """Tell whether the format that a shot is saved in is a film's: pictures in a row remember nothing."""
    kinds = [graph[node]["inputs"][key] for node, key in workflow.inputs["format"].places]
    return not any(kind.startswith("image/") or kind.endswith(("gif", "png")) for kind in kinds)


def settings_of(
    told: story.Story, shot: story.Shot, common: list[str], done: dict[int, Path], lengths: dict[int, int], folder: Path
) -> list[str]:
    """The --set values for one shot, with files for its memory and its beginning, made in `folder`.

    `done` are the films of the shots before it, and `lengths` their frames.

    Raises:
        FilmError: a remembered frame is not there.
    """
    own = merged(common, shot.settings)
    values = dict(text.split("=", 1) for text in own)
    width, height = int(values["width"]), int(values["height"])

    def frame(number: int, index: int) -> pictures.Frame:
        return pictures.Frame(done[number], index if index >= 0 else lengths[number] + index)

    words = [f"prompt={shot.prompt}", f"shot={shot.begins}"]
    if shot.begins == "image":
        words.append(f"image={told.image}")
    before = shot.number - 1
    if shot.begins == "same":
        words.append(f"image={pictures.gather([frame(before, -1)], width, height, folder, still=True)}")
    if shot.begins == "motion":
        carried = [frame(before, -index) for index in range(story.CARRIED["motion"], 0, -1)]
        words.append(f"video={pictures.gather(carried, width, height, folder)}")
    kept = story.remembered(told, shot, lengths)
    if kept:
        frames = [pictures.Frame(m.picture, 0) if m.picture else frame(m.shot, m.frame) for m in kept]
        words += [f"memory={pictures.gather(frames, width, height, folder)}", f"remember={len(frames)}"]
    # A shot without memory uses no LoRA.
    return [text for text in merged(own, words) if kept or not text.startswith("strength=")]


def merged(*layers: list[str] | tuple[str, ...]) -> list[str]:
    """Merge layers of settings; later ones override earlier ones."""
    found: dict[str, str] = {}
    for layer in layers:
        found.update({text.partition("=")[0]: text for text in layer})
    return list(found.values())


def with_defaults(graph: Graph, workflow: Workflow, common: list[str], shot: story.Shot) -> list[str]:
    """Default settings: the size and, as in StoryMem, a different seed for each shot."""
    values = {
        name: graph[node]["inputs"][key]
        for name in ("width", "height", "seed")
        for node, key in workflow.inputs[name].places[:1]
    }
    given = dict(text.split("=", 1) for text in common if "=" in text)
    first = int(given.get("seed", values["seed"]))
    return merged([f"{name}={value}" for name, value in values.items()], common, [f"seed={first + shot.number - 1}"])


async def run(
    client: Client,
    told: story.Story,
    make: Make,
    common: Callable[[story.Shot], list[str]],
    folder: Path,
    limits: batch.Limits,
    say: batch.Say,
    explain: batch.Explain,
) -> batch.Outcome:
    """Make every missing shot in order, save them in `folder`, and join them into one film. A failed shot ends it,
    since those after it would remember it.

    Raises:
        BatchError: `folder` holds a batch already, and `limits` do not say to go on; or another is at work there.
        FilmError: ffmpeg is missing or cannot read a shot.
        LostError: ComfyUI went away; a resumed run goes on.
    """
    async with batch.opened(folder, limits) as journal:
        done: dict[int, Path] = {}
        lengths: dict[int, int] = {}
        for shot in told.shots:
            settings = await asyncio.to_thread(settings_of, told, shot, common(shot), done, lengths, folder / "memory")
            graph, files = make(settings)
            row = batch.row(shot.number, settings, graph, files)
            outcome = await batch.run_rows(client, [row], journal, limits, say, explain)
            if outcome.failed:
                return batch.Outcome(shot.number - 1, outcome.failed)
            done[shot.number] = _film_of(journal, shot.number)
            lengths[shot.number] = await asyncio.to_thread(pictures.count, done[shot.number])
        shots = [(done[shot.number], story.CARRIED.get(shot.begins, 0)) for shot in told.shots]
        await asyncio.to_thread(pictures.join, shots, folder / FILM)
        return batch.Outcome(len(told.shots), {})


def _film_of(journal: batch.Journal, number: int) -> Path:
    names: list[str] = [name for name in journal.events[number]["files"] if name.endswith(_FILMS)]
    if not names:
        raise HearmemanError(f"shot {number} made no film, and a film is what the next one remembers")
    return journal.path.parent / names[0]
