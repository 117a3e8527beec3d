"""Every event that the code logs, with its fields; read from the calls of `log`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

_GRAMMAR = re.compile(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*")
_WRITERS = {"log", "self._say", "self.once.say", "self.once.say_while"}
"""What is called to write an event, which is the first argument."""
_NOT_FIELDS = {"error"}


def found(folder: Path) -> dict[str, set[str]]:
    """Event -> names of its fields, from the Python files below a folder.

    Raises:
        ValueError: an event is not NAME.VERB in lowercase.
    """
    events: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            for event in _events(call):
                if not _GRAMMAR.fullmatch(event):
                    raise ValueError(
                        f"{path}:{call.lineno} logs {event!r}: an event is NAME.VERB, such as sync.uploaded"
                    )
                events.setdefault(event, set()).update(word.arg for word in call.keywords if word.arg)
    return {event: fields - _NOT_FIELDS for event, fields in sorted(events.items())}


def _events(call: ast.Call) -> Iterator[str]:
    if ast.unparse(call.func) in _WRITERS and call.args:
        first = call.args[0]
        for part in (first.body, first.orelse) if isinstance(first, ast.IfExp) else (first,):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value
