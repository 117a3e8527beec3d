"""One vocabulary over all workflows: a word means the same everywhere, and any value that is allowed arrives as it was given."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hearmeman.errors import UsageError
from hearmeman.workflows import library, prepare, schema
from hearmeman.workflows.library import Workflow
from support.media import film, picture, sound
from support.repository import ROOT

FOLDER = ROOT / "workflows"
WORKFLOWS = library.load(FOLDER)
SCHEMA = schema.read(FOLDER / schema.FILE)
COMMON = {
    "prompt": "text",
    "negative": "text",
    "seed": "INT",
    "width": "INT",
    "height": "INT",
    "frames": "INT",
    "fps": "FLOAT",
    "steps": "INT",
    "cfg": "FLOAT",
    "shift": "FLOAT",
    "sampler": "choice",
    "scheduler": "choice",
    "format": "choice",
    "image": "picture",
    "video": "video",
    "prefix": "text",
}
"""The words that every workflow that has such a thing uses for it, and of what kind each is."""


def kind(workflow: Workflow, key: str) -> str:
    node, name = workflow.inputs[key].places[0]
    class_type = library.graph(workflow)[node]["class_type"]
    spec = SCHEMA.spec(class_type, name)
    if isinstance(spec, dict):
        return prepare.kind_of_file(class_type) if spec.get("folder") == "input" else "file"
    found = schema.kind_of(spec)
    return "text" if found == "STRING" else found or "choice"


def test_a_word_is_of_one_kind_everywhere() -> None:
    kinds: dict[str, set[str]] = defaultdict(set)
    for workflow in WORKFLOWS.values():
        for key in workflow.inputs:
            # TurboDiffusion takes 1 to 4 steps, as a choice, and whole frames a second.
            of_its_own = workflow.name == "wan22-i2v-turbodiffusion" and key in ("steps", "fps")
            kinds[key].add(COMMON[key] if of_its_own else kind(workflow, key))
    assert {key: found for key, found in kinds.items() if len(found) > 1} == {}
    assert {key: kinds[key] for key in COMMON} == {key: {found} for key, found in COMMON.items()}


def test_every_loader_sampler_and_saver_is_reached_by_its_word() -> None:
    """What a person changes first is never hidden: a seed, a prompt, a size that the graph has can be set."""
    hidden = []
    for workflow in WORKFLOWS.values():
        reached = {place for parameter in workflow.inputs.values() for place in parameter.places}
        chosen = library.choose(library.graph(workflow), workflow, workflow.defaults({}))
        for node, entry in schema.reachable(chosen, SCHEMA).items():
            for name in ("steps", "filename_prefix", "image", "video", "audio"):
                value = entry["inputs"].get(name)
                is_free = value is not None and not schema.is_link(value) and (node, name) not in reached
                if workflow.name == "mvinverse" and name == "filename_prefix":
                    continue  # Its maps are told apart by it.
                if is_free and (name in ("filename_prefix",) or prepare.is_upload(SCHEMA, chosen, node, name)):
                    hidden.append(f"{workflow.name} {node}.{name}")
    assert hidden == []


def test_a_number_with_a_fraction_is_one_in_the_graph() -> None:
    """A value takes the type of the one it replaces: 16 would refuse 23.976."""
    whole = [
        f"{workflow.name} {node}.{name}"
        for workflow in WORKFLOWS.values()
        for node, entry in library.graph(workflow).items()
        for name, value in entry["inputs"].items()
        if schema.kind_of(SCHEMA.spec(entry["class_type"], name)) == "FLOAT" and isinstance(value, int)
    ]
    assert whole == []


def test_every_parameter_says_what_it_is() -> None:
    for workflow in WORKFLOWS.values():
        assert [key for key, parameter in workflow.inputs.items() if not parameter.help] == [], workflow.name
        assert [key for key, choice in workflow.choices.items() if not choice.help] == [], workflow.name


@pytest.mark.parametrize(
    ("said", "meant"),
    [("mp4", "video/h264-mp4"), ("video/mp4", "video/h264-mp4"), ("webm", "video/webm"), ("webp", "image/webp")],
)
def test_formats_have_short_names(said: str, meant: str) -> None:
    graph, _ = prepare.prepared(WORKFLOWS["wan21-t2v-14b"], [f"format={said}"], FOLDER, {})
    assert graph["save"]["inputs"]["format"] == meant


def numbers() -> list[tuple[str, str]]:
    """Every parameter that is a number with limits."""
    return [
        (workflow.name, key)
        for workflow in WORKFLOWS.values()
        for key in workflow.inputs
        if kind(workflow, key) in ("INT", "FLOAT") and schema.range_of(spec_of(workflow, key))[0] is not None
    ]


def spec_of(workflow: Workflow, key: str) -> Any:
    node, name = workflow.inputs[key].places[0]
    return SCHEMA.spec(library.graph(workflow)[node]["class_type"], name)


@pytest.mark.hypothesis
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(numbers()), st.data())
def test_a_number_within_its_limits_is_taken_and_another_is_refused(
    which: tuple[str, str], data: st.DataObject
) -> None:
    workflow, key = WORKFLOWS[which[0]], which[1]
    low, high, step = schema.range_of(spec_of(workflow, key))
    assert low is not None
    top = min(high if high is not None else low + 1000, low + 100_000)
    if kind(workflow, key) == "INT":
        stride = int(step or 1)
        value: float = int(low) + stride * data.draw(st.integers(0, int(top - low) // stride))
    else:
        value = data.draw(st.floats(low, top, allow_nan=False))
    graph = library.apply(workflow, library.graph(workflow), [f"{key}={value!r}"])
    node, name = workflow.inputs[key].places[0]
    assert graph[node]["inputs"][name] == value
    assert schema.out_of_range(value, spec_of(workflow, key)) == ""
    assert schema.out_of_range(low - 1, spec_of(workflow, key)) != ""
    if high is not None:
        assert schema.out_of_range(high + 1, spec_of(workflow, key)) != ""


@pytest.mark.hypothesis
@settings(deadline=None)
@given(st.sampled_from([name for name in WORKFLOWS if "prompt" in WORKFLOWS[name].inputs]), st.text(max_size=200))
def test_a_prompt_arrives_as_it_was_given(name: str, text: str) -> None:
    workflow = WORKFLOWS[name]
    graph = library.apply(workflow, library.graph(workflow), [f"prompt={text}"])
    assert all(graph[node]["inputs"][key] == text for node, key in workflow.inputs["prompt"].places)


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_every_workflow_is_ready_once_its_files_are_given(name: str, tmp_path: Path) -> None:
    workflow = WORKFLOWS[name]
    make = {"picture": picture, "video": film, "sound": sound}
    graph = schema.reachable(library.choose(library.graph(workflow), workflow, workflow.defaults({})), SCHEMA)
    given = [
        f"{key}={make[kind(workflow, key)](tmp_path)}"
        for key, parameter in workflow.inputs.items()
        if kind(workflow, key) in make and parameter.places[0][0] in graph
    ]
    sent, files = prepare.prepared(workflow, given, FOLDER, {})
    assert len(set(files.values())) == len({setting.partition("=")[2] for setting in given})
    assert schema.mistakes(sent, SCHEMA) == []
    if given:
        with pytest.raises(UsageError, match="needs --set"):
            prepare.prepared(workflow, given[1:], FOLDER, {})
