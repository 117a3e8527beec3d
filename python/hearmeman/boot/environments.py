"""What processes are given of the pod's environment: secrets to none, and nothing that ComfyUI can write to those with secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hearmeman.redact import looks_secret
from hearmeman.settings import SECRETS, Settings


def withheld(environ: Mapping[str, str]) -> set[str]:
    """Name the variables that look secret, and those that repeat a secret's value."""
    names = {name for name in environ if name in SECRETS or looks_secret(name)}
    values = {environ[name] for name in names if len(environ[name]) >= 8}
    return names | {name for name, value in environ.items() if any(secret in value for secret in values)}


_OURS = frozenset(name.upper() for name in Settings.model_fields)


def guarded(environ: Mapping[str, str], folders: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Give an environment for processes that are not ComfyUI's, and the names that are left out of it.

    Code and configuration that ComfyUI can write must not reach them: a PYTHONPATH, an AWS_CONFIG_FILE or an entry of
    PATH that lies in `folders` would be its way to their secrets. Our own variables name such folders and are data.
    """
    inside = re.compile("|".join(rf"(?:^|[:=,;\s'\"]){re.escape(folder)}(?:[/:,;\s'\"]|$)" for folder in folders))
    kept, left_out = {}, []
    for name, value in environ.items():
        if name in ("PWD", "OLDPWD"):
            continue  # A shell's own, and none is started here.
        if name == "PATH":
            entries = [entry for entry in value.split(":") if entry.startswith("/") and not inside.search(entry)]
            kept[name] = ":".join(entries)
        elif name in _OURS or not inside.search(value):
            kept[name] = value
        else:
            left_out.append(name)
    return kept, tuple(sorted(left_out))
