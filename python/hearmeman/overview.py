"""What the command's help says of itself: commands in groups, an example for each, and what exit codes mean."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Look", ("status", "logs", "env", "tune", "check")),
    ("Models", ("models",)),
    ("Work", ("workflows", "run", "voices")),
    ("Outputs", ("sync", "upload", "workspace")),
    ("Change", ("restart", "nodes", "overlay", "as-comfyui", "owners")),
    ("Run by the pod itself", ("boot", "keep", "door", "idle", "sshd", "worker")),
)
"""Headings and their commands; what is in none of them comes before the last."""

EXAMPLES = {
    "boot": "hearmeman boot --plan",
    "status": "hearmeman status --watch",
    "logs": "hearmeman logs comfyui sync -f",
    "env": "hearmeman env --template",
    "tune": "hearmeman tune --models",
    "check": "hearmeman check --json",
    "models": "hearmeman models plan",
    "models list": "hearmeman models list",
    "models show": "hearmeman models show zimage-turbo",
    "models plan": "hearmeman models plan zimage-turbo",
    "models fetch": "hearmeman models fetch zimage-turbo",
    "models add": "hearmeman models add civitai:12345@loras",
    "models remove": "hearmeman models remove civitai:12345@loras",
    "models verify": "hearmeman models verify",
    "models lock": "hearmeman models lock --check",
    "models prune": "hearmeman models prune --yes",
    "sync": "hearmeman sync status",
    "sync status": "hearmeman sync status --json",
    "sync check": "hearmeman sync check",
    "sync parts": "hearmeman sync parts",
    "sync free": "hearmeman sync free",
    "sync cost": "hearmeman sync cost --stored-gb 100",
    "upload": "hearmeman upload --test",
    "workspace": "hearmeman workspace list",
    "workspace save": "hearmeman workspace save",
    "workspace restore": "hearmeman workspace restore",
    "workspace list": "hearmeman workspace list",
    "workspace prune": "hearmeman workspace prune",
    "workflows": "hearmeman workflows list",
    "workflows list": "hearmeman workflows list",
    "workflows show": "hearmeman workflows show z-image-turbo",
    "workflows check": "hearmeman workflows check",
    "workflows run": "hearmeman workflows run z-image-turbo --set prompt='a fox'",
    "workflows batch": "hearmeman workflows batch z-image-turbo rows.csv --out out",
    "run": "hearmeman run infcam --video a.mp4 --camera arc_left",
    "run infcam": "hearmeman run infcam --video a.mp4 --camera arc_left",
    "voices": "hearmeman voices list",
    "voices list": "hearmeman voices list",
    "voices add": "hearmeman voices add me.wav --name me",
    "voices remove": "hearmeman voices remove me",
    "restart": "hearmeman restart comfyui",
    "nodes": "hearmeman nodes update",
    "nodes update": "hearmeman nodes update",
    "nodes install": "hearmeman nodes install",
    "overlay": "hearmeman overlay list",
    "overlay exec": "hearmeman overlay exec -- python -c 'import torch'",
    "overlay list": "hearmeman overlay list",
    "overlay install": "hearmeman overlay install",
    "overlay reset": "hearmeman overlay reset",
    "as-comfyui": "hearmeman as-comfyui -- bash",
    "owners": "hearmeman owners",
    "keep": "hearmeman keep NAME --env-file E.json --log N.log -- true",
    "door": "hearmeman door",
    "idle": "hearmeman idle",
    "sshd": "hearmeman sshd --run-dir /run/hearmeman --keys-dir KEYS",
}
"""Command, or command and action -> a line that can be typed as it is, or nearly."""

RESUMES = {
    "models fetch": "what has arrived is kept; run the same command again to continue",
    "models add": "what has arrived is kept; run the same command again to continue",
    "models verify": "no file was changed; run the same command to start over",
    "workflows batch": "finished rows are kept; run the same command with --resume to continue",
    "workspace save": "the previous save still counts; run the same command again to send the rest",
    "workspace restore": "restored files are kept; run the same command again to continue",
}
"""Command and action -> what becomes of what was done when Ctrl-C stops it."""

CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage, nothing was done, 3 partly done, 130 stopped by Ctrl-C."


def stopped(words: Sequence[str]) -> str:
    """Say what Ctrl-C leaves of the command that was typed as `words`, and what goes on with it."""
    resumes = RESUMES.get(" ".join([word for word in words if not word.startswith("-")][:2]), "")
    return f"stopped: {resumes}" if resumes else "stopped"


def epilog(command: str, columns: int) -> str:
    """Give what ends the help of a command, such as 'models plan': an example, and the exit codes."""
    codes = textwrap.fill(CODES, columns, subsequent_indent="  ")
    return f"Example:\n  {EXAMPLES.get(command, f'hearmeman {command}')}\n\n{codes}"


def overview(commands: Mapping[str, str], columns: int) -> str:
    """Render all commands (name -> one line of help) in groups, each with an example, for a terminal so wide."""
    from hearmeman.terminal import colored, table

    listed = {name for _, names in GROUPS for name in names}
    more = ("More", tuple(name for name in commands if name not in listed))
    lines = ["Runs a ComfyUI pod, and shows what it is doing.", ""]
    for heading, names in (*GROUPS[:-1], more, GROUPS[-1]):
        rows = []
        for name in (name for name in names if name in commands):
            rows.append((f"  {name}", commands[name]))
            rows.append(("", f"$ {EXAMPLES.get(name, f'hearmeman {name}')}"))
        if rows:
            lines += [colored(heading, "bold"), *table(rows, columns=columns), ""]
    more_help = "`hearmeman COMMAND --help` describes each one. `--no-color` or NO_COLOR: no colours."
    return "\n".join([*lines, *textwrap.wrap(more_help, columns)])
