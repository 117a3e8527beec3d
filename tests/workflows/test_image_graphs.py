"""The check of every graph in a real ComfyUI, itself checked against the stand-in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.comfyui import ComfyUI, comfyui
from hearmeman.models import catalogue
from hearmeman.workflows import check, library, schema
from image_graphs import Case, cases, check_graphs, lay_placeholders
from support.repository import ROOT
from support.waiting import PATIENCE

FOLDER = ROOT / "workflows"
WORKFLOWS = library.load(FOLDER)
SCHEMA = schema.read(FOLDER / schema.FILE)
CASES = [*cases(WORKFLOWS, SCHEMA)]
CATALOGUE = catalogue.read(Path(catalogue.__file__).with_name("catalogue.toml"))

Said = dict[str, tuple[str, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    with comfyui(tmp_path_factory.mktemp("comfyui"), write_seconds=0.2) as running:
        yield running


def said_of(server: ComfyUI, folder: Path) -> Said:
    said: Said = {}
    asyncio.run(check_graphs(server.url, folder, lambda name, problem, seen: said.update({name: (problem, seen)})))
    return said


def index(folder: Path, **entries: dict[str, str]) -> Path:
    """A folder of workflows with these and our nodes; an entry without models is what a CPU runs."""
    folder.mkdir()
    (folder / schema.FILE).write_bytes((FOLDER / schema.FILE).read_bytes())
    text = ""
    for name, entry in entries.items():
        (folder / f"{name}.json").write_text(entry["graph"])
        models = entry.get("models", "[]")
        text += f'[[workflow]]\nname = "{name}"\ntitle = "{name}"\nfile = "{name}.json"\nmodels = {models}\n'
    (folder / "index.toml").write_text(text)
    return folder


def test_every_workflow_is_a_case_with_each_of_its_choices() -> None:
    assert {case.workflow.name for case in CASES} == set(WORKFLOWS)
    assert len(CASES) == sum(len([*check.combinations(workflow)]) for workflow in WORKFLOWS.values())
    assert len({case.name for case in CASES}) == len(CASES)


def test_only_what_needs_no_weights_is_run() -> None:
    assert {case.workflow.name for case in CASES if case.is_run} == {"smoke-image", "smoke-audio"}


def test_a_case_brings_the_files_that_its_choices_want() -> None:
    def uploads(name: str) -> dict[str, str]:
        [case] = [case for case in CASES if case.name == name]
        return dict(case.uploads)

    assert uploads("wan22-ti2v-5b from=text") == {}
    assert uploads("wan22-ti2v-5b from=image") == {"image": "picture"}
    assert uploads("chatterbox-vc") == {"source": "sound", "voice": "sound"}
    assert uploads("steadydancer attention=sdpa") == {"image": "picture", "video": "video"}


def test_placeholders_satisfy_every_case_and_lie_over_nothing(tmp_path: Path) -> None:
    own = tmp_path / "vae/wan_2.1_vae.safetensors"
    own.parent.mkdir()
    own.write_bytes(b"weights")
    assert lay_placeholders(CATALOGUE, tmp_path) > len(CATALOGUE.files)
    assert lay_placeholders(CATALOGUE, tmp_path) == 0
    assert own.read_bytes() == b"weights"
    assert (tmp_path / "vibevoice/VibeVoice-Large/config.json").is_file()
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}

    def wrong(case: Case) -> list[schema.Mistake]:
        graph = library.choose(library.graph(case.workflow), case.workflow, case.options)
        return schema.mistakes(schema.reachable(graph, SCHEMA), SCHEMA, there)

    assert [case.name for case in CASES if wrong(case)] == []


def test_what_a_cpu_can_runs_and_the_rest_is_validated_and_taken_back(server: ComfyUI, tmp_path: Path) -> None:
    smoke = json.loads((FOLDER / "smoke-image.json").read_text())
    smoke["2"]["inputs"]["filename_prefix"] = "ran"
    run = json.dumps(smoke)
    smoke["1"]["inputs"]["batch_size"] = 200
    smoke["2"]["inputs"]["filename_prefix"] = "heavy"
    folder = index(tmp_path / "w", light={"graph": run}, heavy={"graph": json.dumps(smoke), "models": '["sd15"]'})
    said = said_of(server, folder)
    assert said["graph light"] == ("", "ran and made ran_00001_.png")
    assert said["graph heavy"] == ("", "validated")
    assert said["graphs at rest"] == ("", "the queue is empty")
    assert len([*server.output.glob("heavy*")]) < 200


def test_what_comfyui_refuses_is_a_problem_of_its_graph_alone(server: ComfyUI, tmp_path: Path) -> None:
    smoke = json.loads((FOLDER / "smoke-image.json").read_text())
    good = json.dumps(smoke)
    # A class of the schema that this ComfyUI does not have.
    smoke["1"] = {"class_type": "ImageScale", "inputs": {"image": ["3", 0], "upscale_method": "area", "width": 8, "height": 8, "crop": "disabled"}}  # fmt: skip
    smoke["3"] = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
    folder = index(tmp_path / "w", bad={"graph": json.dumps(smoke), "models": '["sd15"]'}, good={"graph": good})
    said = said_of(server, folder)
    assert "ImageScale, which this ComfyUI does not have" in said["graph bad"][0]
    assert said["graph good"][0] == ""


def test_a_comfyui_that_does_not_outlive_a_graph_is_one_problem(tmp_path: Path) -> None:
    graph = (FOLDER / "smoke-image.json").read_text()
    folder = index(tmp_path / "w", one={"graph": graph}, two={"graph": graph})
    with comfyui(tmp_path / "comfyui") as running:
        running.process.terminate()
        running.process.wait(PATIENCE)
        said = said_of(running, folder)
    assert [*said] == ["graph one"] and "did not outlive it" in said["graph one"][0]
