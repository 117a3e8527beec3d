"""The environment of interactive shells, as a file that bash reads: settings, quoted, and no secret."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_THE_SHELL = {"_", "HOME", "HOSTNAME", "LOGNAME", "OLDPWD", "PWD", "SHELL", "SHLVL", "TERM", "USER"}


def shell_file(environ: Mapping[str, str], unset: Iterable[str]) -> str:
    """Render the file; `unset` are names that a shell may have from elsewhere and must not keep."""
    lines = ["# Written by hearmeman boot; read by /etc/bash.bashrc and /etc/profile.d/hearmeman.sh."]
    lines += [
        f"export {name}={shlex.quote(environ[name])}"
        for name in sorted(environ)
        if _NAME.fullmatch(name) and name not in _OF_THE_SHELL
    ]
    names = " ".join(name for name in sorted(unset) if _NAME.fullmatch(name))
    return "\n".join([*lines, *([f"unset {names}"] if names else [])]) + "\n"
