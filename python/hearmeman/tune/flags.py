"""ComfyUI's own flags, and the check of a person's COMFYUI_ARGS against them."""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGED = Path(__file__).with_name("cli-flags.json")

_OURS = {
    "--listen": "use COMFYUI_HOST",
    "--port": "use COMFYUI_PORT",
    "--base-directory": "use VOLUME_DIR",
    "--models-directory": "use MODELS_DIR",
    "--output-directory": "use COMFYUI_OUTPUT_DIR",
    "--input-directory": "inputs are in VOLUME_DIR/ComfyUI/input; use VOLUME_DIR",
    "--temp-directory": "temporary files are in VOLUME_DIR/ComfyUI/temp; use VOLUME_DIR",
    "--user-directory": "user data is in VOLUME_DIR/ComfyUI/user; use VOLUME_DIR",
    "--database-url": "the database is in VOLUME_DIR/.hearmeman/comfyui; use VOLUME_DIR",
    "--extra-model-paths-config": "it names the image's custom nodes; use MODELS_DIR for models",
    "--auto-launch": "a pod has no browser; leave it out",
    "--disable-auto-launch": "boot gives it already; leave it out",
    "--log-stdout": "boot gives it already; leave it out",
    "--quick-test-for-ci": "it ends ComfyUI at once; leave it out",
    "--list-feature-flags": "it ends ComfyUI at once; leave it out",
    "--help": "it ends ComfyUI at once; leave it out",
    "-h": "it ends ComfyUI at once; leave it out",
    "--windows-standalone-build": "this is Linux; leave it out",
    "--tls-keyfile": "RunPod's proxy speaks TLS for the pod; leave it out",
    "--tls-certfile": "RunPod's proxy speaks TLS for the pod; leave it out",
}
_GONE = {
    "--medvram": "ComfyUI manages this itself",
    "--normalvram": "it is what ComfyUI does anyway",
    "--cpu-text-encoder": "ComfyUI offloads text encoders itself",
}
"""What older guides give to ComfyUI and its parser would refuse; each only asked for what happens anyway."""
_NUMBER = re.compile(r"-\d+(\.\d*)?")


@dataclass(frozen=True)
class Flag:
    """One option of ComfyUI."""

    name: str
    """Its long spelling."""
    nargs: object
    """argparse's nargs: 0 none, None one, '?', '*' or '+'."""
    kind: str
    """'int', 'float' or another type's name; values of others are not checked."""
    choices: tuple[str, ...]
    """What a value may be; empty means anything."""
    excludes: frozenset[str]
    """Flags that ComfyUI refuses beside this one."""


def load_flags(path: Path = PACKAGED) -> dict[str, Flag]:
    """Read a cli-flags.json: every spelling -> its flag."""
    return parse_flags(json.loads(path.read_text(encoding="utf-8")))


def parse_flags(content: Mapping[str, Any]) -> dict[str, Flag]:
    """Make flags of what a cli-flags.json holds: every spelling -> its flag."""
    flags = {}
    for option in content["options"]:
        spellings = option["flags"]
        flag = Flag(
            name=spellings[-1],
            nargs=option["nargs"],
            kind=option["type"] or "",
            choices=tuple(option["choices"] or ()),
            excludes=frozenset(option["mutually_exclusive"] or ()) - {spellings[-1]},
        )
        flags.update(dict.fromkeys(spellings, flag))
    return flags


def check(text: str, flags: Mapping[str, Flag]) -> tuple[tuple[str, ...], list[str], list[str]]:
    """Split COMFYUI_ARGS and find what ComfyUI, or boot, would refuse: (arguments, problems, warnings).

    Flags that no longer exist and asked for what ComfyUI does by itself are dropped with a warning.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        return (), [f"COMFYUI_ARGS={text!r}: {error}: close the quote"], []
    problems: list[str] = []
    warnings: list[str] = []
    kept: list[str] = []
    seen: list[str] = []
    at = 0
    while at < len(words):
        spelling, has_value, value = words[at].partition("=")
        began = at
        at += 1
        flag = flags.get(spelling)
        if not _is_flag(spelling):
            problems.append(f"{words[at - 1]!r} belongs to no flag")
            continue
        values = [value] if has_value else []
        while not has_value and at < len(words) and not _is_flag(words[at]) and (_takes(flag, len(values))):
            values.append(words[at])
            at += 1
        if flag is None and spelling in _GONE:
            dropped = " ".join(words[began:at])
            warnings.append(f"COMFYUI_ARGS: {dropped} is dropped, ComfyUI has no such flag: {_GONE[spelling]}")
            continue
        kept += words[began:at]
        if flag is None:
            problems.append(_unknown(spelling, flags))
        elif spelling in _OURS:
            problems.append(f"{spelling} is set by boot: {_OURS[spelling]}")
        else:
            problems += _values(flag, values, bool(has_value))
            problems += [f"{flag.name} excludes {other}" for other in seen if other in flag.excludes]
            seen.append(flag.name)
    return tuple(kept), [f"COMFYUI_ARGS: {problem}" for problem in problems], warnings


def names(arguments: Sequence[str]) -> set[str]:
    """Pick the flags out of an argument list."""
    return {word.partition("=")[0] for word in arguments if _is_flag(word)}


def value_of(arguments: Sequence[str], flag: str) -> str | None:
    """Give the last value of `flag` in an argument list, as argparse would see it; None when it has none."""
    value = None
    for at, word in enumerate(arguments):
        spelling, joined, rest = word.partition("=")
        if spelling == flag:
            follows = at + 1 < len(arguments) and not _is_flag(arguments[at + 1])
            value = rest if joined else arguments[at + 1] if follows else None
    return value


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not _NUMBER.fullmatch(word)


def _takes(flag: Flag | None, have: int) -> bool:
    if flag is None:
        return True  # Swallow the values of an unknown flag, so that it is reported once.
    return flag.nargs in ("*", "+") or (flag.nargs in (None, "?") and have == 0)


def _values(flag: Flag, values: list[str], joined: bool) -> list[str]:
    if flag.nargs == 0:
        return [f"{flag.name} takes no value"] if joined else []
    if flag.name == "--enable-cors-header" and values in ([], ["*"]):
        return [
            f"{flag.name} without an origin lets every web page drive ComfyUI: name the origin, as in "
            "https://example.org"
        ]
    if flag.nargs in (None, "+") and not values:
        return [f"{flag.name} needs a value"]
    if flag.name == "--cache-ram" and len(values) > 2:
        return [f"{flag.name} takes two values at most"]
    problems = []
    for value in values:
        if flag.choices and value not in flag.choices:
            problems.append(f"{flag.name} {value}: must be one of {', '.join(flag.choices)}")
        elif flag.kind == "is_valid_directory" and not Path(value).is_dir():
            problems.append(f"{flag.name} {value}: must be a folder that exists")
        elif flag.kind in ("int", "float"):
            try:
                int(value) if flag.kind == "int" else float(value)
            except ValueError:
                noun = "a whole number" if flag.kind == "int" else "a number"
                problems.append(f"{flag.name} {value}: must be {noun}")
    return problems


def _unknown(spelling: str, flags: Mapping[str, Flag]) -> str:
    near = difflib.get_close_matches(spelling, flags, n=1) or [f for f in sorted(flags) if f.startswith(spelling)]
    return f"{spelling} is not a flag of ComfyUI" + (f": did you mean {near[0]}?" if near else "")
