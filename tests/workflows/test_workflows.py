"""Workflows: the index, settings put into a graph, and runs against the stand-in ComfyUI."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.comfyui import ComfyUI, comfyui
from hearmeman.cli import main
from hearmeman.errors import UsageError
from hearmeman.workflows import answers, client, library
from hearmeman_build.host import ROOT
from support.ports import free_port
from support.waiting import PATIENCE

FOLDER = ROOT / "workflows"
WORKFLOWS = library.load(FOLDER)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    """A stand-in that writes within 0.2 s."""
    with comfyui(tmp_path_factory.mktemp("comfyui"), write_seconds=0.2) as running:
        yield running


def _graph(name: str, *settings: str) -> library.Graph:
    workflow = WORKFLOWS[name]
    return library.apply(workflow, library.graph(workflow), settings)


def _run(url: str, graph: library.Graph, timeout: float = PATIENCE) -> tuple[answers.Result, list[answers.Progress]]:
    seen: list[answers.Progress] = []

    async def go() -> answers.Result:
        async with client.Client(url) as comfy:
            return await comfy.run(graph, timeout, seen.append)

    return asyncio.run(go()), seen


def test_every_workflow_of_the_index_loads() -> None:
    assert {"smoke-image", "smoke-audio"} <= set(WORKFLOWS)
    for workflow in WORKFLOWS.values():
        library.graph(workflow)


def test_a_setting_takes_the_type_of_what_it_replaces() -> None:
    graph = _graph("smoke-image", "width=128", "color=#0000ff", "prefix=a=b")
    assert graph["1"]["inputs"]["width"] == 128
    assert graph["1"]["inputs"]["color"] == 255
    assert graph["2"]["inputs"]["filename_prefix"] == "a=b"
    assert library.graph(WORKFLOWS["smoke-image"])["1"]["inputs"]["width"] == 64


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("width", "write it as --set key=value"),
        ("widht=3", "did you mean width"),
        ("width=wide", "it takes a whole number, like 64"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        _graph("smoke-image", setting)


def test_a_run_reports_progress_and_names_its_file(server: ComfyUI) -> None:
    result, seen = _run(server.url, _graph("smoke-image", "color=1"))
    [output] = result.outputs
    assert (server.output / output.path).read_bytes().startswith(b"\x89PNG")
    steps = [p.value for p in seen if p.class_type == "SaveImage" and p.value is not None]
    assert len(steps) > 3 and steps == sorted(steps)
    assert seen[-1].value == seen[-1].max


def test_sound_is_an_output_too(server: ComfyUI) -> None:
    [output] = _run(server.url, _graph("smoke-audio"))[0].outputs
    assert output.kind == "audio"
    assert (server.output / output.path).read_bytes().startswith(b"fLaC")


def test_the_same_prompt_again_is_seen_as_unchanged(server: ComfyUI) -> None:
    graph = _graph("smoke-image", "color=2")
    first, second = _run(server.url, graph)[0], _run(server.url, graph)[0]
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.outputs == second.outputs


def test_a_refusal_names_node_class_and_input(server: ComfyUI) -> None:
    graph = _graph("smoke-image")
    graph["1"]["inputs"]["width"] = 0
    with pytest.raises(
        answers.RefusedError, match=r"node 1 \(EmptyImage\), input width: Value 0 smaller than min of 1"
    ):
        _run(server.url, graph)
    graph["1"]["class_type"] = "WanVideoSampler"
    with pytest.raises(answers.RefusedError, match="node 1 is a WanVideoSampler, which this ComfyUI does not have"):
        _run(server.url, graph)


def test_a_failing_node_is_named(server: ComfyUI) -> None:
    with pytest.raises(answers.RunFailedError, match=r"node 1 \(EmptyImage\) failed with MemoryError"):
        _run(server.url, _graph("smoke-image", "width=16384", "height=16384", "count=4096"))


def test_an_interrupted_prompt_says_so(server: ComfyUI) -> None:
    over = threading.Event()

    def interrupt() -> None:
        while not over.wait(0.05):
            urllib.request.urlopen(urllib.request.Request(f"{server.url}/interrupt", b"{}"), timeout=PATIENCE).close()

    breaker = threading.Thread(target=interrupt)
    breaker.start()
    try:
        with pytest.raises(answers.RunFailedError, match="was interrupted at node"):
            _run(server.url, _graph("smoke-image", "color=3", "count=1000"))
    finally:
        over.set()
        breaker.join()


def test_too_little_time_says_what_became_of_the_prompt(server: ComfyUI) -> None:
    with pytest.raises(answers.TimedOutError, match=r"did not end within 0\.3 s: its id is .* it was not stopped"):
        _run(server.url, _graph("smoke-image", "color=4", "count=10"), timeout=0.3)


def test_nothing_there_says_where_to_look() -> None:
    with pytest.raises(answers.NotReachableError, match="hearmeman status"):
        _run(f"http://127.0.0.1:{free_port()}", _graph("smoke-image"))


def test_a_file_that_leads_out_of_the_folder_is_not_saved(tmp_path: Path) -> None:
    output = answers.Output("1", "images", "x.png", "../..", "output")
    with pytest.raises(answers.RunFailedError, match="leads out of the folder"):
        next(answers.targets(tmp_path, output, "0123456789"))


def test_the_command_saves_beside_what_is_there(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["workflows", "run", "smoke-image", "--dir", str(FOLDER), "--url", server.url, "--out", str(tmp_path)]
    saved = []
    for _ in range(3):
        assert main([*words, "--json", "--set", "color=5", "--set", "prefix=twice"], {}) == 0
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [event["event"] for event in events if event["event"] != "progress"] == ["submitted", "output", "done"]
        saved += [Path(event["saved"]) for event in events if event["event"] == "output"]
        saved[0].write_bytes(b"mine")
    assert saved[0].read_bytes() == b"mine"
    assert len(set(saved)) == 3
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in saved[1:])
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "smoke-imgae"], "did you mean smoke-image"),
        (["run", "smoke-image", "--url", "ftp://x"], "it takes an address like"),
        (["run", "smoke-image", "--timeout", "0"], "a number of seconds above 0"),
    ],
)
def test_the_command_used_wrongly(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workflows", *words, "--dir", str(FOLDER)], {}) == 2
    assert said in capsys.readouterr().err


def test_a_file_is_uploaded_once_and_its_name_goes_into_the_graph(server: ComfyUI, tmp_path: Path) -> None:
    picture = tmp_path / "ein Bild, schön.png"
    picture.write_bytes(b"first")

    async def upload() -> tuple[str, str, str]:
        async with client.Client(server.url) as session:
            first = await session.upload(picture)
            again = await session.upload(picture)
            picture.write_bytes(b"second")
            return first, again, await session.upload(picture)

    first, again, other = asyncio.run(upload())
    assert (first, again, other) == ("ein Bild, schön.png", "ein Bild, schön.png", "ein Bild, schön (1).png")
    graph = _graph("smoke-image")
    files = {("2", "filename_prefix"): picture}

    async def put() -> None:
        async with client.Client(server.url) as session:
            await client.put_files(session, graph, files)

    asyncio.run(put())
    assert graph["2"]["inputs"]["filename_prefix"] == "ein Bild, schön (1).png"
