"""The environment of interactive shells, as a file that bash reads: settings, quoted, and no secret."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

from hearmeman.image import COMMANDS_DIR

COMMANDS = str(COMMANDS_DIR)
"""Where a shell finds `pip` and `python`, which become ComfyUI's user first."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_THE_SHELL = {"_", "HOME", "HOSTNAME", "LOGNAME", "OLDPWD", "PWD", "SHELL", "SHLVL", "TERM", "USER"}


def shell_file(environ: Mapping[str, str], unset: Iterable[str]) -> str:
    """Render the file; `unset` are names that a shell may have from elsewhere and must not keep."""
    environ = {**environ, "PATH": f"{COMMANDS}:{environ.get('PATH', '')}".rstrip(":")}
    lines = ["# Written by hearmeman boot; read by /etc/bash.bashrc and /etc/profile.d/hearmeman.sh."]
    lines += [
        f"export {name}={shlex.quote(environ[name])}"
        for name in sorted(environ)
        if _NAME.fullmatch(name) and name not in _OF_THE_SHELL
    ]
    # What root puts into ComfyUI's folders is ComfyUI's to change, by the group that those folders pass on.
    lines.append("umask 002")
    # sh reads this file too, and has no such word.
    lines.append('[ -z "${BASH_VERSION-}" ] || complete -o default -C "hearmeman complete" hearmeman')
    names = " ".join(name for name in sorted(unset) if _NAME.fullmatch(name))
    return "\n".join([*lines, *([f"unset {names}"] if names else [])]) + "\n"
