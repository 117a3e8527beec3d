"""How a variable is declared, and what is found wrong in an environment before its values are parsed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

UNSUBSTITUTED = re.compile(r"\{\{\s*RUNPOD_SECRET_\w+\s*\}\}")
UNSUBSTITUTED_TEXT = (
    "holds a RunPod secret that was not substituted: make that secret in RunPod's console or unset the variable"
)


def _split(given: Any) -> Any:
    return tuple(word for word in re.split(r"[,\s]+", given) if word) if isinstance(given, str) else given


Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""A list as people type it: words separated by commas or blanks."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a variable."""

    name: str
    """The variable; empty when it is about several."""
    text: str
    """The whole sentence, without a secret's value."""


def var(default: Any, help: str, aliases: tuple[str, ...] = (), given: bool = False, **limits: Any) -> Any:
    """Declare a variable: `aliases` are old spellings, `given` says that RunPod sets it and not a person."""
    extra: dict[str, Any] = {"aliases": list(aliases), "given": given}
    return Field(default=default, description=help, json_schema_extra=extra, **limits)


def extra_of(field: Any) -> dict[str, Any]:
    """Give what `var` noted beside pydantic's own facts."""
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def renamed(
    environ: Mapping[str, str], aliases: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str], list[Problem]]:
    """Put old spellings under their new names: (environment, new name -> spelling used, problems).

    Empty values count as unset. Both spellings with different values are a problem, since neither can be meant.
    """
    found = {name: value for name, value in environ.items() if value != "" and name not in aliases}
    spelt: dict[str, str] = {}
    problems = []
    for old, new in aliases.items():
        value = environ.get(old, "")
        if value == "":
            continue
        if found.get(new, value) != value:
            other = spelt.get(new, new)
            problems.append(
                Problem(new, f"{old} is another spelling of {other}, and both are set to different values: unset one")
            )
        elif new not in found:
            found[new], spelt[new] = value, old
    return found, spelt, problems


_FAMILIES = ("ENABLE_", "R2_", "COMFYUI_", "GPU_", "HF_", "SYNC_", "XTTS_", "CHATTERBOX_")
_OTHERS = ("RUNPOD_", "NVIDIA_", "CUDA_", "KUBERNETES_", "HF_HUB_", "XDG_", "PYTHON")


def near_misses(environ: Mapping[str, str], known: Mapping[str, Any]) -> list[Problem]:
    """Find names that are most likely slips of known ones; `known` holds every spelling."""
    problems = []
    for name in sorted(environ):
        if name in known or name.startswith(_OTHERS) or not re.fullmatch(r"\w+", name):
            continue
        # Names of our own families are most likely meant for us; others must be closer to be called a slip.
        cutoff = 0.85 if name.startswith(_FAMILIES) else 0.9
        near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=cutoff)
        if near:
            problems.append(Problem(name, f"{name} is not a variable: did you mean {near[0]}?"))
    return problems


def strangers(environ: Mapping[str, str], known: Mapping[str, Any]) -> list[str]:
    """Name the toggles that nothing here knows and that resemble none; they have no effect."""
    slips = {problem.name for problem in near_misses(environ, known)}
    return sorted(
        name for name in environ if name.startswith(("ENABLE_", "R2_")) and name not in known and name not in slips
    )
