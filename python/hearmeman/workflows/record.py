"""Makes node-schema.json from a running ComfyUI's /object_info; pure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

_MOST = 60
"""Above this many values, only the count and the first few are kept."""
_FIRST = 5
_UPLOADS = ("image_upload", "video_upload", "audio_upload", "animated_image_upload", "upload_to", "file_upload")
_PLAIN = ("INT", "FLOAT", "BOOLEAN", "STRING")
_DYNAMIC = ("COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3")
_FLAGS = ("is_input_list", "output_node", "experimental", "deprecated", "api_node")


def recorded(
    info: Mapping[str, Any],
    models: Mapping[str, list[str]],
    folders: Sequence[Mapping[str, Any]],
    version: str,
    before: Mapping[str, Any],
) -> dict[str, Any]:
    """The new schema: `info` is /object_info, `models` each folder's files as /models gives them.

    `folders` is /experiment/models: name, folders, and the extensions by which they are listed, where none means every
    file. `before` is the schema that is replaced: a loader's list is empty where no model is, so which folder a known
    loader reads is taken from there, and so are the facts that /object_info does not hold.
    """
    hints = _hints(before["nodes"])
    nodes = {
        name: _node(name, node, models, before["nodes"].get(name, {}), hints) for name, node in sorted(info.items())
    }
    formats = _video_formats(info) or before.get("vhs_video_formats", {})
    by_name = {str(folder["name"]): folder for folder in folders}
    new: dict[str, Any] = {
        "comfyui_version": version,
        "model_folders": _places(folders, before["model_folders"]),
        "model_extensions": {name: sorted(folder["extensions"]) for name, folder in sorted(by_name.items())},
        "from_source": [],
        "vhs_video_formats": formats,
        "nodes": nodes,
    }
    return {**{key: value for key, value in before.items() if key not in new}, **new}


def _places(folders: Sequence[Mapping[str, Any]], before: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Each type's folders below ComfyUI's base; for one that is also elsewhere, or not listed, what was known before."""
    found = {str(folder["name"]): [str(place) for place in folder["folders"]] for folder in folders}
    first, usual = found.get("checkpoints", [""])[0], "models/checkpoints"
    base = first.removesuffix(usual)
    made = dict(before)
    for name, places in found.items():
        below = first.endswith(usual) and all(place.startswith(base) for place in places)
        if below or name not in before:
            made[name] = [place.removeprefix(base) for place in places]
    return dict(sorted(made.items()))


def _hints(nodes: Mapping[str, Any]) -> dict[str, str]:
    """Which folder an input of a name usually lists."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for node in nodes.values():
        for group in node["inputs"].values():
            for name, spec in group.items():
                if (
                    isinstance(spec, dict)
                    and spec.get("folder", "input") != "input"
                    and isinstance(spec["folder"], str)
                ):
                    found[name][spec["folder"]] += 1
    return {name: counts.most_common(1)[0][0] for name, counts in found.items()}


def _node(
    name: str,
    node: Mapping[str, Any],
    models: Mapping[str, list[str]],
    old: Mapping[str, Any],
    hints: Mapping[str, str],
) -> dict[str, Any]:
    inputs = {}
    for kind in ("optional", "required"):
        given = node.get("input", {}).get(kind) or {}
        known = old.get("inputs", {}).get(kind, {})
        if given:
            inputs[kind] = {
                key: _input(key, spec, models, known.get(key), hints) for key, spec in sorted(given.items())
            }
    made: dict[str, Any] = {
        "category": node.get("category", ""),
        "inputs": inputs,
        "module": node.get("python_module", ""),
        "outputs": [_output(one) for one in node.get("output", [])],
    }
    names = [str(one) for one in node.get("output_name") or []]
    if names and names != made["outputs"]:
        made["output_names"] = names
    lists = [number for number, is_list in enumerate(node.get("output_is_list") or []) if is_list]
    made |= {"output_is_list": lists} if lists else {}
    made |= {key: True for key in _FLAGS if node.get(key)}
    return dict(sorted(made.items()))


def _output(kind: Any) -> Any:
    return kind if isinstance(kind, str) else "COMBO"


def _input(name: str, spec: Any, models: Mapping[str, list[str]], known: Any, hints: Mapping[str, str]) -> Any:
    kind = spec[0] if isinstance(spec, list) and spec else spec
    more = spec[1] if isinstance(spec, list) and len(spec) > 1 and isinstance(spec[1], dict) else {}
    if isinstance(kind, list) or kind == "COMBO":
        return _choice(name, kind if isinstance(kind, list) else more.get("options") or [], more, models, known, hints)
    if kind in _DYNAMIC:
        return _dynamic(kind, more, models, hints)
    if kind not in _PLAIN or more.get("forceInput"):
        return kind
    facts = [more.get(key) for key in ("default", "min", "max", "step")]
    if kind in ("BOOLEAN", "STRING"):
        facts = facts[:1]
    if not any(fact is not None for fact in facts):
        return kind
    # Either a default alone, or all four.
    return [kind, facts[0]] if not any(fact is not None for fact in facts[1:]) else [kind, *facts]


def _choice(
    name: str,
    values: list[Any],
    more: Mapping[str, Any],
    models: Mapping[str, list[str]],
    known: Any,
    hints: Mapping[str, str],
) -> Any:
    if any(more.get(key) for key in _UPLOADS):
        return {"folder": "input"}
    if isinstance(known, dict) and "folder" in known:
        return known
    if more.get("remote"):
        return {"remote": True}
    for folder, files in models.items():
        listed = [value for value in values if value in files]
        if listed:
            fixed = [value for value in values if value not in files]
            return {"folder": folder, **({"fixed": fixed} if fixed else {})}
    if not values and name in hints:
        return {"folder": hints[name]}
    return values if len(values) <= _MOST else {"combo_n": len(values), "first": values[:_FIRST]}


def _dynamic(kind: str, more: Mapping[str, Any], models: Mapping[str, list[str]], hints: Mapping[str, str]) -> Any:
    if kind == "COMFY_AUTOGROW_V3":
        return {"autogrow": more.get("template", {})}
    combo = {}
    for option in more.get("options", []):
        groups = {
            group: {key: _input(key, spec, models, None, hints) for key, spec in inputs.items()}
            for group, inputs in (option.get("inputs") or {}).items()
            if inputs
        }
        combo[str(option["key"])] = groups
    return {"dynamic_combo": combo}


def _video_formats(info: Mapping[str, Any]) -> dict[str, Any]:
    given = info.get("VHS_VideoCombine", {}).get("input", {}).get("required", {}).get("format", [])
    formats = given[1].get("formats") if len(given) > 1 and isinstance(given[1], dict) else None
    return dict(sorted(formats.items())) if isinstance(formats, dict) else {}


def rendered(content: Mapping[str, Any]) -> str:
    """The file's text, one class per line, so that a diff is readable."""
    lines = []
    for key, value in content.items():
        if key == "nodes":
            nodes = (f"  {json.dumps(name)}: {_compact(node)}" for name, node in value.items())
            lines.append(' "nodes": {\n' + ",\n".join(nodes) + "\n }")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value, sort_keys=True)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One line per class that was added, removed, or has other inputs or outputs."""
    found = [f"+ {name}" for name in sorted(set(after) - set(before))]
    found += [f"- {name}" for name in sorted(set(before) - set(after))]
    for name in sorted(set(before) & set(after)):
        old, new = (json.loads(_compact(node)) for node in (before[name], after[name]))
        parts = [key for key in ("inputs", "outputs") if _trimmed(old.get(key)) != _trimmed(new.get(key))]
        found += [f"~ {name}: {' and '.join(parts)}"] if parts else []
    return found


def _trimmed(value: Any) -> Any:
    """Leave out the empty end of each list: some sources write it."""
    if isinstance(value, dict):
        return {key: _trimmed(item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    kept = [_trimmed(item) for item in value]
    while kept and kept[-1] is None:
        kept.pop()
    return kept
