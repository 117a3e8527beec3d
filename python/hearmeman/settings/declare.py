"""How a variable is declared, and what is found wrong in an environment before its values are parsed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from hearmeman.redact import looks_secret
from hearmeman.settings.values import cleaned

UNSUBSTITUTED = re.compile(r"\{\{.*\}\}|RUNPOD_SECRET_", re.DOTALL)
"""RunPod puts a secret in the place of {{ RUNPOD_SECRET_name }}; where it has no such secret, the words stay."""
UNSUBSTITUTED_TEXT = (
    "holds a RunPod secret that was not substituted: in RunPod's console make one of the name behind RUNPOD_SECRET_ in it, "
    "or unset the variable"
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a variable."""

    name: str
    """The variable; empty when it is about several."""
    text: str
    """The whole sentence, without a secret's value."""
    spares_pod: bool = False
    """Whether only a part of the pod is without what it needs, and the rest can run."""
    value: str = ""
    """What it is set to; empty for a secret, or where it is not set."""
    takes: str = ""
    """What it takes; empty where the value alone is not what is wrong."""


def var(
    default: Any, help: str, aliases: tuple[str, ...] = (), given: bool = False, secret: str = "", **limits: Any
) -> Any:
    """Declare a variable.

    `aliases` are old spellings, `given` says that RunPod sets it and not a person, `secret` is what its secret is
    called in RunPod's console.
    """
    extra: dict[str, Any] = {"aliases": list(aliases), "given": given, "secret": secret}
    return Field(default=default, description=help, json_schema_extra=extra, **limits)


def extra_of(field: Any) -> dict[str, Any]:
    """Give what `var` noted beside pydantic's own facts."""
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def renamed(
    environ: Mapping[str, str], aliases: Mapping[str, str], names: Iterable[str]
) -> tuple[dict[str, str], dict[str, str], list[Problem]]:
    """Put old spellings under their new names: (environment, new name -> spelling used, problems).

    The values of `names` and `aliases` are cleaned, and empty ones count as unset. Both spellings with different
    values are a problem, since neither can be meant.
    """
    ours = set(names)
    found = {name: cleaned(value) if name in ours else value for name, value in environ.items() if name not in aliases}
    found = {name: value for name, value in found.items() if value != ""}
    spelt: dict[str, str] = {}
    problems = []
    for old, new in aliases.items():
        value = cleaned(environ.get(old, ""))
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


_FAMILIES = (
    *("ENABLE_", "R2_", "COMFYUI_", "GPU_", "HF_", "SYNC_", "XTTS_", "CHATTERBOX_", "MODEL_", "MODELS_", "WAN_"),
    *("DOWNLOAD_", "STATUS_", "JUPYTER_", "STOP_", "VOLUME_", "STORAGE_", "UPDATE_", "CIVITAI_", "VOICE_"),
)
_OTHERS = ("RUNPOD_", "NVIDIA_", "CUDA_", "KUBERNETES_", "HF_HUB_", "XDG_", "PYTHON")


def near_misses(environ: Mapping[str, str], known: Mapping[str, Any]) -> tuple[list[Problem], list[str]]:
    """Find names that are most likely slips of known ones: (problems, warnings); `known` holds every spelling.

    A name of our own families, in small letters, or of a lock that would stay open, can only be meant for us; any other
    may as well be another program's.
    """
    problems, warnings = [], []
    for name in sorted(environ):
        if name in known or name.startswith(_OTHERS) or not re.fullmatch(r"\w+", name):
            continue
        ours = name.upper().startswith(_FAMILIES)
        near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.85 if ours else 0.9)
        if not near:
            continue
        if ours or name.upper() == near[0] or looks_secret(near[0]):
            problems.append(Problem(name, f"{name} is not a variable: did you mean {near[0]}?"))
        else:
            warnings.append(f"{name} is not a variable of this pod and has no effect: rename it if you meant {near[0]}")
    return problems, warnings


def strangers(environ: Mapping[str, str], known: Mapping[str, Any]) -> list[str]:
    """Say which toggles and near misses have no effect, since nothing here knows them."""
    problems, warnings = near_misses(environ, known)
    slips = {problem.name for problem in problems}
    unknown = sorted(
        name for name in environ if name.startswith(("ENABLE_", "R2_")) and name not in known and name not in slips
    )
    return [*(f"{name} is set, but unknown here: it has no effect; remove it" for name in unknown), *warnings]
