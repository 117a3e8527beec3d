"""What another ComfyUI has for a workflow, from its /object_info; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hearmeman.workflows.library import Graph
from hearmeman.workflows.schema import Schema


def lacks(graph: Graph, info: Mapping[str, Any], schema: Schema) -> list[str]:
    """What `graph` needs and a ComfyUI lacks: node classes, and files that its loaders do not list."""
    found = []
    for node in graph.values():
        class_type = node["class_type"]
        if class_type not in info:
            found.append(f"node {class_type}")
            continue
        for name, value in node["inputs"].items():
            spec = schema.spec(class_type, name)
            if not isinstance(spec, dict) or "folder" not in spec or spec["folder"] == "input":
                continue
            offered = choices(info[class_type], name)
            if offered is not None and value not in offered:
                found.append(str(value))
    return list(dict.fromkeys(found))


def choices(node: Mapping[str, Any], name: str) -> list[Any] | None:
    """An input's values in /object_info, in either of its two formats; None if it is not a choice."""
    for kind in ("required", "optional"):
        spec = (node.get("input", {}).get(kind) or {}).get(name)
        if isinstance(spec, list) and spec:
            if isinstance(spec[0], list):
                return spec[0]
            options = spec[1].get("options") if len(spec) > 1 and isinstance(spec[1], dict) else None
            return options if spec[0] == "COMBO" and isinstance(options, list) else None
    return None
