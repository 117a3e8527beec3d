"""Reads the options of the pinned ComfyUI from its own parser, for the check of COMFYUI_ARGS in the pod."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from enum import Enum
from pathlib import Path
from typing import Any

from hearmeman_build.errors import BuildError
from hearmeman_build.plugins.plugin import Build, run


def read(source: Path) -> dict[str, Any]:
    """Every option of ComfyUI at `source`, in its parser's order.

    Raises:
        BuildError: its parser is not where it was.
    """
    sys.path.insert(0, str(source))
    try:
        parser = importlib.import_module("comfy.cli_args").parser
        version = _version(source)
    except (ImportError, AttributeError) as error:
        raise BuildError(f"ComfyUI's options cannot be read from comfy/cli_args.py: {error}") from error
    groups: dict[str, list[str]] = {}
    for group in parser._mutually_exclusive_groups:
        names = [action.option_strings[-1] for action in group._group_actions]
        groups |= {action.dest: names for action in group._group_actions}
    found = [_option(action, groups.get(action.dest)) for action in parser._actions]
    # Defaults name the folder that the source lies in now.
    options = json.loads(json.dumps(found).replace(str(source), "<comfyui>"))
    return {"allow_abbrev": parser.allow_abbrev, "comfyui_version": version, "options": options}


def _version(source: Path) -> str:
    file = source / "comfyui_version.py"
    if not file.is_file():
        return ""
    return file.read_text(encoding="utf-8").rpartition('__version__ = "')[2].partition('"')[0]


def _option(action: argparse.Action, group: list[str] | None) -> dict[str, Any]:
    takes_value = action.nargs != 0
    choices = action.choices
    if isinstance(action.type, type) and issubclass(action.type, Enum):
        choices = list(action.type)
    return {
        "choices": None if choices is None else [_plain(choice) for choice in choices],
        "const": _plain(action.const) if takes_value else None,
        "default": None if action.default is argparse.SUPPRESS else _plain(action.default),
        "dest": action.dest,
        "flags": list(action.option_strings),
        "metavar": action.metavar,
        "mutually_exclusive": group,
        "nargs": action.nargs,
        "takes_value": takes_value,
        "type": getattr(action.type, "__name__", None),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def build(job: Build) -> None:
    """Write the options of `source` as JSON."""
    job.out.write_text(json.dumps(read(Path(job.attrs["source"])), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    run(build)
