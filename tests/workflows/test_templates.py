"""The templates of ComfyUI's page: each holds its workflow's graph, by numbers, and nothing that ComfyUI would refuse."""

from __future__ import annotations

import json

import pytest

from hearmeman.workflows import library, schema, templates
from support.repository import ROOT

WORKFLOWS = library.load(ROOT / "workflows")
SCHEMA = schema.read(ROOT / "workflows" / schema.FILE)
FOLDER = ROOT / "comfyui_node/example_workflows"
MOST_BYTES = 12_000
"""What a card may weigh: there are dozens, in every image and every clone."""


def test_every_workflow_is_a_template_and_nothing_else_is() -> None:
    wanted = {f"{name}.{kind}" for name in WORKFLOWS for kind in ("json", "jpg")}
    assert {path.name for path in FOLDER.iterdir()} == wanted, "make docs writes the graphs, make cards the cards"
    # ComfyUI's page takes no other characters in an address (?template=NAME).
    assert all(name.replace("-", "").replace(".", "").replace("_", "").isalnum() for name in WORKFLOWS)


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_a_template_has_a_small_card_with_its_title_of_today(name: str) -> None:
    path = FOLDER / f"{name}.jpg"
    assert path.exists(), "it has no card: make cards"
    card = path.read_bytes()
    assert card[:2] == b"\xff\xd8"
    assert len(card) < MOST_BYTES
    assert WORKFLOWS[name].title.encode() in card, "its title has changed: make cards"


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_a_template_holds_the_graph_under_numbers(name: str) -> None:
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert (content["nodes"], content["links"], content["version"]) == ([], [], 0.4)
    graph = content["extra"]["hearmeman"]["graph"]
    assert all(node.isdecimal() for node in graph)
    assert schema.mistakes(graph, SCHEMA) == []
    workflow = WORKFLOWS[name]
    whole = library.choose(library.graph(workflow), workflow, workflow.defaults({}))
    kept = schema.reachable(whole, SCHEMA)
    assert [node["class_type"] for node in graph.values()] == [node["class_type"] for node in kept.values()]


def test_links_follow_their_nodes() -> None:
    graph = {"b": {"class_type": "SaveImage", "inputs": {"images": ["a", 0]}}, "a": {"class_type": "X", "inputs": {}}}
    made = templates.titled(graph)
    assert made["1"] == {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}, "_meta": {"title": "b"}}
