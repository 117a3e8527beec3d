"""Reads ComfyUI's flags out of its own parser, and checks that the tuner's rows are among them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hearmeman_build.errors import BuildError
from hearmeman_build.host import write_atomically

# Runs in a process of its own: the parser's module parses its command line when it is imported.
_READER = """
import json, sys
sys.path.insert(0, sys.argv.pop(1))
import comfy.options
from comfy import cli_args

parser = cli_args.parser
groups = [[a.option_strings[-1] for a in g._group_actions] for g in parser._mutually_exclusive_groups]

def plain(value):
    value = getattr(value, "value", value)
    return value if isinstance(value, (str, int, float, bool, list, type(None))) else str(value)

def option(action):
    name = action.option_strings[-1]
    choices = action.choices
    kind = getattr(action.type, "__name__", None)
    if choices is None and hasattr(action.type, "__members__"):
        choices = [member.value for member in action.type]
    default = action.default
    if isinstance(default, str) and default.startswith("sqlite:///"):
        default = "sqlite:///<comfyui>/user/comfyui.db"
    return {
        "choices": None if choices is None else [plain(choice) for choice in choices],
        "const": plain(action.const) if action.nargs == "?" else None,
        "default": None if action.dest == "help" else plain(default),
        "dest": action.dest,
        "flags": list(action.option_strings),
        "metavar": action.metavar,
        "mutually_exclusive": next((group for group in groups if name in group), None),
        "nargs": action.nargs,
        "takes_value": action.nargs != 0,
        "type": kind,
    }

json.dump({"allow_abbrev": parser.allow_abbrev, "options": [option(a) for a in parser._actions]}, sys.stdout)
"""


def read_flags(source: Path, revision: str) -> dict[str, Any]:
    """Read the flags of the ComfyUI at `source`.

    Raises:
        BuildError: it is no ComfyUI, or its parser cannot be imported by itself any more.
    """
    if not (source / "comfy/cli_args.py").is_file():
        raise BuildError(f"{source} holds no comfy/cli_args.py: name the folder of ComfyUI's source")
    command = [sys.executable, "-S", "-B", "-c", _READER, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BuildError(f"{source}/comfy/cli_args.py cannot be read: {last}")
    found: dict[str, Any] = json.loads(done.stdout)
    version = source / "comfyui_version.py"
    number = (
        version.read_text(encoding="utf-8").rpartition('__version__ = "')[2].partition('"')[0]
        if version.is_file()
        else ""
    )
    facts = {"comfyui_rev": revision, "comfyui_version": number, "prog": "main.py"}
    return {"allow_abbrev": found["allow_abbrev"], **facts, "options": found["options"]}


def write_flags(source: Path, revision: str, to: Path) -> int:
    """Write the flags to `to`, once every row of the tuner is known to be among them; their number.

    Raises:
        BuildError: as `read_flags`, or a row holds what this ComfyUI does not take; nothing was written.
    """
    from hearmeman.tune import flags, tuner

    content = read_flags(source, revision)
    known = flags.parse_flags(content)
    rows = [text for _, _, _, arguments in tuner.ROWS for text in arguments]
    problems = [problem for text in (*rows, *tuner.OTHER_ARGUMENTS) for problem in flags.check(text, known)[1]]
    if problems:
        told = "; ".join(problem.replace("COMFYUI_ARGS: ", "") for problem in problems)
        raise BuildError(f"the tuner gives what ComfyUI {revision[:12]} does not take: {told}: mend tune/tuner.py")
    write_atomically(to, (json.dumps(content, indent=0) + "\n").encode())
    return len(content["options"])
