"""Every sentence in our code that says what to do, found in its syntax tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

_VERBS = (
    "accept|add|allow|ask|attach|begin|build|change|check|choose|close|copy|correct|create|delete|drop|edit|"
    "enable|end|export|fetch|fill|free|get|give|install|keep|leave|let|list|load|lock|log|look|lower|make|mount|"
    "move|name|open|pass|pick|press|pull|push|put|raise|read|regulate|remove|rename|repeat|report|reset|restart|"
    "restore|run|save|say|see|select|send|set|shorten|show|start|stop|store|take|try|turn|unset|update|upgrade|"
    "upload|use|wait|write"
)
_CLAUSE = re.compile(rf"(?:^|[,:;.?!] |\n)(?:please |then |first |or |and )?(?:{_VERBS})(?![-\w(])", re.IGNORECASE)
"""An imperative at the beginning of a clause."""
_SQL = re.compile(r"\s*(?:SELECT|DELETE|CREATE|UPDATE) ")
_NO_SENTENCE = {"help", "description", "epilog", "metavar", "prog", "usage"}
"""Arguments that say what a command or an option does."""


def sentences(folder: Path) -> Iterator[tuple[str, str]]:
    """Give (file, text) for each text in `folder`'s Python that gives advice; what is put into it is {}."""
    for path in sorted(folder.rglob("*.py")):
        file = str(path.relative_to(folder))
        yield from ((file, text) for text in _texts(ast.parse(path.read_text())) if _CLAUSE.search(text))


def _texts(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.Expr) and isinstance(child, ast.Constant):
            continue  # A docstring.
        if isinstance(child, ast.keyword) and child.arg in _NO_SENTENCE:
            continue
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and child.func.id == "var":
            continue  # A variable's one line of help.
        text = _text(child)
        if text is None:
            yield from _texts(child)
            continue
        if " " in text.strip() and not _SQL.match(text):
            yield text
        for part in child.values if isinstance(child, ast.JoinedStr) else ():
            yield from _texts(part) if isinstance(part, ast.FormattedValue) else ()


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        if left is not None or right is not None:
            return (left or "{}") + (right or "{}")
    return None
