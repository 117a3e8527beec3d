"""Checks a prompt before it is queued and words each error as the real server does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from standin.nodes import CLASSES

Json = dict[str, Any]


@dataclass
class Verdict:
    """What the check found: an error for the whole prompt, errors by node, and the outputs that can run."""

    error: Json | None = None
    node_errors: dict[str, Json] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)


def _error(kind: str, message: str, details: str = "", extra: Json | None = None) -> Json:
    return {"type": kind, "message": message, "details": details, "extra_info": extra or {}}


def check(prompt: Mapping[str, Any]) -> Verdict:
    """Check every class, then each output's inputs; converts number inputs in place as the real one does."""
    ends = []
    for node_id, node in prompt.items():
        name = node.get("class_type") if isinstance(node, dict) else None
        meta = node.get("_meta") if isinstance(node, dict) else None
        title = (meta.get("title") if isinstance(meta, dict) else None) or name
        extra = {"node_id": node_id, "class_type": name, "node_title": title}
        if name is None:
            message = f"Node '{title or f'ID #{node_id}'}' has no class_type. The workflow may be corrupted."
            return Verdict(_error("missing_node_type", message, f"Node ID '#{node_id}'", extra))
        if name not in CLASSES:
            message = f"Node '{title}' not found. The custom node may not be installed."
            return Verdict(_error("missing_node_type", message, f"Node ID '#{node_id}'", extra))
        if CLASSES[name].output_node:
            ends.append(node_id)
    if not ends:
        return Verdict(_error("prompt_no_outputs", "Prompt has no outputs"))
    verdict = Verdict()
    for end in ends:
        found: dict[str, list[Json]] = {}
        _node(prompt, end, found, ())
        if not any(found.values()):
            verdict.outputs.append(end)
        for node_id, errors in found.items():
            if errors:
                blank = {"errors": errors, "dependent_outputs": [], "class_type": prompt[node_id]["class_type"]}
                verdict.node_errors.setdefault(node_id, blank)["dependent_outputs"].append(end)
    if not verdict.outputs:
        details = []
        for node_id, entry in verdict.node_errors.items():
            details.append(f"* {entry['class_type']} {node_id}:")
            details += [f"  - {error['message']}: {error['details']}" for error in entry["errors"]]
        verdict.error = _error(
            "prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(details)
        )
    return verdict


def _node(prompt: Mapping[str, Any], node_id: str, found: dict[str, list[Json]], above: tuple[str, ...]) -> None:
    if node_id in found:
        return
    errors = found.setdefault(node_id, [])
    node = prompt[node_id]
    inputs = node.get("inputs")
    if not isinstance(inputs, dict):
        inputs = node["inputs"] = {}
    for name, (kind, conf) in CLASSES[node["class_type"]].inputs.items():
        if name not in inputs:
            errors.append(_error("required_input_missing", "Required input is missing", name, {"input_name": name}))
        elif isinstance(inputs[name], list):
            _link(prompt, name, kind, inputs[name], errors, found, (*above, node_id))
        else:
            _value(name, kind, conf, inputs, errors)


def _link(
    prompt: Mapping[str, Any],
    name: str,
    kind: str,
    link: list[Any],
    errors: list[Json],
    found: dict[str, list[Json]],
    above: tuple[str, ...],
) -> None:
    extra: Json = {"input_name": name, "received_value": link}
    if len(link) != 2 or not isinstance(link[0], str) or not isinstance(link[1], int):
        message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
        errors.append(_error("bad_linked_input", message, name, extra))
        return
    source, slot = link
    outputs = CLASSES[prompt[source]["class_type"]].outputs if source in prompt else ()
    if source in above:
        errors.append(_error("dependency_cycle", "Dependency cycle detected", name, extra))
    elif not 0 <= slot < len(outputs):
        message = "Exception when validating node"
        errors.append(_error("exception_during_validation", message, f"no output {slot} at node '{source}'", extra))
    elif outputs[slot] != kind:
        details = f"{name}, received_type({outputs[slot]}) mismatch input_type({kind})"
        errors.append(_error("return_type_mismatch", "Return type mismatch between linked nodes", details, extra))
    else:
        _node(prompt, source, found, above)


_CONVERT: Mapping[str, Any] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool, "COMBO": str}


def _value(name: str, kind: str, conf: Mapping[str, Any], inputs: Json, errors: list[Json]) -> None:
    value = inputs[name]
    extra: Json = {"input_name": name, "input_config": [kind, dict(conf)], "received_value": value}
    if kind not in _CONVERT:
        details = f"{name}, received_type({type(value).__name__}) mismatch input_type({kind})"
        errors.append(_error("return_type_mismatch", "Return type mismatch between linked nodes", details, extra))
        return
    try:
        value = inputs[name] = _CONVERT[kind](value)
    except (TypeError, ValueError, OverflowError) as error:
        message = f"Failed to convert an input value to a {kind} value"
        extra["exception_message"] = str(error)
        errors.append(_error("invalid_input_type", message, f"{name}, {value}, {error}", extra))
        return
    if "min" in conf and value < conf["min"]:
        message = f"Value {value} smaller than min of {conf['min']}"
        errors.append(_error("value_smaller_than_min", message, name, extra))
    elif "max" in conf and value > conf["max"]:
        message = f"Value {value} bigger than max of {conf['max']}"
        errors.append(_error("value_bigger_than_max", message, name, extra))
