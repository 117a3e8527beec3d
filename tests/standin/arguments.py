"""Parses the command line strictly by the flag facts of the pinned ComfyUI, so an unknown flag ends it with 2."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any


def load_facts(path: Path) -> dict[str, Any]:
    """The flag facts: version, revision and one entry per option."""
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


def directory(path: str) -> str:
    """An existing readable folder.

    Raises:
        argparse.ArgumentTypeError: it is missing, no folder or not readable.
    """
    if not Path(path).exists():
        raise argparse.ArgumentTypeError(f"The path '{path}' does not exist.")
    if not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"'{path}' is not a directory.")
    if not os.access(path, os.R_OK):
        raise argparse.ArgumentTypeError(f"You do not have read permissions for '{path}'.")
    return path


_TYPES: dict[str | None, Any] = {"int": int, "float": float, "is_valid_directory": directory}


def parser(facts: dict[str, Any]) -> argparse.ArgumentParser:
    """The parser that the facts describe, with their groups of flags that exclude each other."""
    result = argparse.ArgumentParser(prog=facts["prog"], allow_abbrev=facts["allow_abbrev"])
    groups: dict[tuple[str, ...], Any] = {}
    for option in facts["options"]:
        if "--help" in option["flags"]:
            continue
        group: Any = result
        if option["mutually_exclusive"]:
            key = tuple(option["mutually_exclusive"])
            group = groups.setdefault(key, None) or result.add_mutually_exclusive_group()
            groups[key] = group
        if option["nargs"] == 0:
            group.add_argument(*option["flags"], dest=option["dest"], action="store_true")
            continue
        group.add_argument(
            *option["flags"],
            dest=option["dest"],
            default=option["default"],
            const=option["const"],
            nargs=option["nargs"],
            type=_TYPES.get(option["type"], str),
            choices=option["choices"],
            metavar=option["metavar"],
        )
    return result
