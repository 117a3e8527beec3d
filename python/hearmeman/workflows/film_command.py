"""`hearmeman workflows batch storymem STORY.json`: a whole film, checked before the first shot is sent."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from hearmeman.errors import HearmemanError, PartlyDoneError, UsageError
from hearmeman.workflows import batch, film, library, ram, run_command, schema, story
from hearmeman.workflows.client import Client
from hearmeman.workflows.prepare import Files, prepared
from hearmeman.workflows.shown import Events


def run(workflow: library.Workflow, args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Make the film; returns the exit code.

    Raises:
        HearmemanError: one of its leaves, with what happened and what to do.
    """
    url, token = run_command.checked(workflow, args, environ)
    film.suits(workflow)
    told = story.read(args.rows)
    if args.image:
        raise UsageError("--image: a story names the picture that it begins with, as `image`")
    graph, folder = library.graph(workflow), Path(args.dir)

    def common(shot: story.Shot) -> list[str]:
        return film.with_defaults(graph, workflow, [*told.settings, *args.settings], shot)

    def make(settings: list[str]) -> tuple[library.Graph, Files]:
        return prepared(workflow, settings, folder, environ)

    _check(workflow, told, args.settings, folder, environ)
    if args.fetch:
        begins = [f"shot={begins}" for begins in {shot.begins for shot in told.shots}]
        for one in begins:
            run_command.fetch(workflow, argparse.Namespace(**{**vars(args), "settings": [one]}), environ)
    events = Events(sys.stdout) if args.json else None

    def explain(number: int, error: HearmemanError) -> str:
        return run_command.with_advice(error, workflow, graph, folder, args, environ)

    async def go() -> batch.Outcome:
        async with Client(url, token) as client:
            await ram.check_machine(client, workflow, not args.url)
            limits = batch.Limits(1, args.timeout, args.resume)
            say = run_command.sayer(events, len(told.shots))
            return await film.run(client, told, make, common, args.out, limits, say, explain)

    outcome = asyncio.run(go())
    if events is not None:
        events.event("done", rows=len(told.shots), done=outcome.done, failed=outcome.failed)
    if outcome.failed:
        [number] = outcome.failed
        raise PartlyDoneError(
            f"shot {number} of {len(told.shots)} failed, and later ones would remember it, so none was sent; "
            "run the same command with --resume to continue there"
        )
    if events is None:
        print(f"{outcome.done} shots joined into one film: {args.out / film.FILM}")
    return 0


def _check(
    workflow: library.Workflow, told: story.Story, given: list[str], folder: Path, environ: Mapping[str, str]
) -> None:
    """Raises UsageError for every shot whose settings ComfyUI would refuse, before hours of work on others."""
    nodes, wrong = schema.read(folder / schema.FILE), []
    if told.image is not None and not told.image.is_file():
        wrong.append(f"its first picture {told.image} does not exist")
    for shot in told.shots:
        settings = film.merged(told.settings, given, shot.settings, [f"shot={shot.begins}"])
        try:
            options = library.chosen(workflow, settings, environ)
            graph = library.apply(workflow, library.choose(library.graph(workflow), workflow, options), settings)
            wrong += [f"shot {shot.number}: {one}" for one in schema.mistakes(schema.reachable(graph, nodes), nodes)]
            if not film.makes_film(workflow, graph):
                wrong.append(f"shot {shot.number}: its format is not a film's: give format=mp4")
        except HearmemanError as error:
            wrong.append(f"shot {shot.number}: {error}")
    if wrong:
        raise story.StoryError("nothing was sent:\n" + "\n".join(f"  {one}" for one in wrong[:10]))
