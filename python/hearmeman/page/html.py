"""HTML as values: anything not made by `tag` is escaped, so no file name or log line can become markup."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from hearmeman.terminal import plain

_VOID = frozenset({"br", "img", "input", "link", "meta", "source", "wbr"})


class Html(str):
    """Markup that is safe to write as it is."""

    __slots__ = ()


Child = str | int | None | Iterable["Child"]
"""Text is escaped, Html is not, None is nothing."""


def markup(child: Child) -> Html:
    """Render a child or many."""
    if child is None:
        return Html("")
    if isinstance(child, Html):
        return child
    if isinstance(child, str | int):
        return Html(escape(plain(child)))
    return Html("".join(markup(one) for one in child))


def tag(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Html:
    """Make an element; `class_` and `for_` are class and for, underscores become dashes, True has no value, None is
    left out.
    """
    shown = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        shown.append(f" {attribute}" if value is True else f' {attribute}="{escape(plain(value))}"')
    head = f"<{name}{''.join(shown)}>"
    return Html(head if name in _VOID else f"{head}{markup(children)}</{name}>")
