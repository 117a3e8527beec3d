"""Makes templates for ComfyUI's page from the workflows; comfyui_node/web/templates.js opens them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hearmeman.workflows import library, schema
from hearmeman.workflows.library import Graph, Workflow


def template(workflow: Workflow, nodes: schema.Schema) -> dict[str, Any]:
    """One template: an empty editor document with the graph and its default choices."""
    chosen = library.choose(library.graph(workflow), workflow, workflow.defaults({}))
    graph = titled(schema.reachable(chosen, nodes))
    empty: dict[str, Any] = {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": [], "config": {}}
    return {**empty, "extra": {"hearmeman": {"workflow": workflow.name, "graph": graph}}, "version": 0.4}


def titled(graph: Graph) -> Graph:
    """Title each node as in the workflow, and number them: the editor's ids are numbers."""
    number = {node: str(count) for count, node in enumerate(graph, start=1)}
    made: Graph = {}
    for node, entry in graph.items():
        inputs = {
            name: [number[value[0]], value[1]] if schema.is_link(value) else value
            for name, value in entry["inputs"].items()
        }
        title = {} if node.isdecimal() else {"_meta": {"title": node.replace("_", " ")}}
        made[number[node]] = {"class_type": entry["class_type"], "inputs": inputs, **title}
    return made


def texts(workflows: Mapping[str, Workflow], nodes: schema.Schema) -> dict[str, str]:
    """Every template's file name and content."""
    made = {f"{name}.json": template(workflow, nodes) for name, workflow in workflows.items()}
    return {name: json.dumps(content, indent=1, ensure_ascii=False) + "\n" for name, content in made.items()}
