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
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
from hearmeman_build.plugins.comfyui_options import read
json.dump(read(Path(sys.argv.pop(1))), sys.stdout)
"""


def read_flags(source: Path, revision: str) -> dict[str, Any]:
    """Read the flags of the ComfyUI at `source`.

    Raises:
        BuildError: it is no ComfyUI, or its parser cannot be imported by itself any more.
    """
    if not (source / "comfy/cli_args.py").is_file():
        raise BuildError(f"{source} holds no comfy/cli_args.py: name the folder of ComfyUI's source")
    command = [sys.executable, "-S", "-B", "-c", _READER, str(Path(__file__).parents[1]), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BuildError(f"{source}/comfy/cli_args.py cannot be read: {last}")
    found: dict[str, Any] = json.loads(done.stdout)
    facts = {"comfyui_rev": revision, "comfyui_version": found["comfyui_version"], "prog": "main.py"}
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
        raise BuildError(f"the tuner gives what ComfyUI {revision[:12]} does not take: {told}: correct tune/tuner.py")
    write_atomically(to, (json.dumps(content, indent=0) + "\n").encode())
    return len(content["options"])
