"""Puts every workflow of ours, with every choice, to a running ComfyUI: what needs no weights runs, the rest is validated."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hearmeman.errors import HearmemanError
from hearmeman.models.catalogue import Catalogue, Snapshot
from hearmeman.workflows import check, library, prepare, schema
from hearmeman.workflows.answers import NotReachableError
from hearmeman.workflows.client import Client, put_files
from hearmeman.workflows.library import Workflow
from support.media import film, picture, sound

FETCH_THEMSELVES = frozenset({"ChatterboxTTS", "ChatterboxVC"})
"""Classes that load weights which no model of the catalogue brings: a graph with one is not run."""
RUN_SECONDS = 120.0
"""How long a graph that runs may take."""
SETTLE_SECONDS = 6.0
"""VibeVoice's nodes keep their list of models for 5 seconds: who lays files waits that long."""
SNAPSHOT = ("config.json", "model.safetensors")
"""What a repository's folder holds at least: VibeVoice's nodes list no folder without both."""
QUIET_SECONDS = 60.0
"""How long ComfyUI may need to come to rest after the last prompt was taken back."""

_MADE = {"picture": picture, "video": film, "sound": sound}

Say = Callable[[str, str, str], None]
"""What was checked, the problem (empty if there is none), and what was seen."""


@dataclass(frozen=True)
class Case:
    """One workflow with one choice of each kind."""

    workflow: Workflow
    options: Mapping[str, str]
    """Choice -> its option."""
    uploads: Mapping[str, str]
    """Parameter that takes a file -> picture, video or sound."""
    is_run: bool
    """Whether it can run without a GPU and without weights; the others are taken back once ComfyUI has validated them."""

    @property
    def name(self) -> str:
        """The workflow's name and what was chosen."""
        return self.workflow.name + "".join(f" {key}={value}" for key, value in self.options.items())


def cases(workflows: Mapping[str, Workflow], nodes: schema.Schema) -> Iterator[Case]:
    """Every workflow with every choice."""
    for workflow in workflows.values():
        for options in check.combinations(workflow):
            graph = schema.reachable(library.choose(library.graph(workflow), workflow, options), nodes)
            uploads = {
                key: prepare.kind_of_file(graph[parameter.places[0][0]]["class_type"])
                for key, parameter in workflow.inputs.items()
                if parameter.places[0][0] in graph and prepare.is_upload(nodes, graph, *parameter.places[0])
            }
            fetches = any(node["class_type"] in FETCH_THEMSELVES for node in graph.values())
            yield Case(workflow, options, uploads, not workflow.needs(options) and not fetches)


def lay_placeholders(catalogue: Catalogue, models: Path) -> int:
    """An empty file for each of the catalogue's below `models`, none over what is there; how many were laid."""
    laid = 0
    for file in catalogue.files:
        place = models / file.to
        whole = isinstance(file.source, Snapshot)
        for path in [place / name for name in SNAPSHOT] if whole else [place]:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.touch(mode=0o644)
                laid += 1
    return laid


async def check_graphs(url: str, folder: Path, say: Say) -> None:
    """Put every case of `folder`'s index to the ComfyUI at `url`, one after another, and tell `say` of each.

    One that runs must make a file. The others must pass ComfyUI's validation whole, and are taken back at once.
    """
    nodes = schema.read(folder / schema.FILE)
    with tempfile.TemporaryDirectory() as made:
        files = {kind: make(Path(made)) for kind, make in _MADE.items()}
        async with Client(url) as client:
            for case in cases(library.load(folder), nodes):
                given = [f"{key}={value}" for key, value in case.options.items()]
                given += [f"{key}={files[kind]}" for key, kind in case.uploads.items()]
                try:
                    seen = await _put(client, case, given, folder)
                except NotReachableError as error:
                    # The rest would say the same.
                    say(f"graph {case.name}", f"ComfyUI did not outlive it, or was not there: {error}", "")
                    return
                except HearmemanError as error:
                    say(f"graph {case.name}", str(error), "")
                else:
                    say(f"graph {case.name}", "", seen)
            say("graphs at rest", *await _rest(client))


async def _put(client: Client, case: Case, given: list[str], folder: Path) -> str:
    graph, files = prepare.prepared(case.workflow, given, folder, {})
    await put_files(client, graph, files)
    if not case.is_run:
        await client.stop(await client.submit(graph, "graphs"))
        return "validated"
    result = await client.run(graph, RUN_SECONDS, lambda progress: None)
    if not result.outputs:
        raise HearmemanError("it ran and made no file")
    return "ran and made " + ", ".join(output.path for output in result.outputs)


async def _rest(client: Client) -> tuple[str, str]:
    """Whether nothing is left in the queue: one that had begun ends by its interruption, or by its empty weights."""
    running: object = None
    try:
        async with asyncio.timeout(QUIET_SECONDS):
            while True:
                queue = await client.get_object("/queue")
                running = [*queue["queue_running"], *queue["queue_pending"]]
                if not running:
                    return "", "the queue is empty"
                await asyncio.sleep(0.2)
    except TimeoutError:
        return f"still in the queue after {QUIET_SECONDS:g} s: {str(running)[:500]}", ""
    except NotReachableError as error:
        return f"ComfyUI did not outlive the graphs: {error}", ""
