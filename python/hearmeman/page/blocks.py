"""Building blocks of the page's sections: cards, lists, bars, buttons, times and sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hearmeman.page.html import Html, tag
from hearmeman.terminal import age, duration, size

Found = Mapping[str, Any]
"""What `snapshot.Snapshot.look` gives."""
NOT_FROM_HERE = frozenset({"door", "gate"})
"""Processes that would end before they could answer."""
_CODE = re.compile(r"`([^`]+)`")


def card(
    key: str, title: str, *content: Html | str | None, wide: bool = False, note: str = "", action: Html | None = None
) -> Html:
    """Make a section with its heading, and next to it a note and its actions."""
    head = tag("h2", title, id=f"h-{key}")
    beside = tag("span", note, class_="note") if note else None
    return tag(
        "section",
        tag("header", head, beside, action),
        *content,
        id=key,
        class_="card wide" if wide else "card",
        aria_labelledby=f"h-{key}",
    )


def facts(rows: list[tuple[str, Html | str]]) -> Html:
    """Make a list of names and values."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in rows))


def sentence(text: str) -> Html:
    """Escape a sentence; `commands` in it are shown as code."""
    pieces = _CODE.split(text)
    return tag("span", *(tag("code", piece) if number % 2 else piece for number, piece in enumerate(pieces)))


def bar(label: str, value: float, most: float, text: str, key: str, level: str = "") -> Html:
    """Make a bar with its meaning in words next to it."""
    shown = tag(
        "progress",
        value=f"{min(value, most):.6g}",
        max=f"{most:.6g}" if most > 0 else "1",
        aria_label=label,
        class_=level,
    )
    return tag(
        "div", tag("span", label, class_="label"), shown, tag("span", text, class_="value"), class_="bar", data_key=key
    )


def restart(name: str) -> Html:
    """Make the button that restarts a process."""
    button = tag(
        "button",
        f"Restart {name}",
        type="submit",
        data_confirm=f"Restart {name}? Its current work is lost.",
    )
    hidden = tag("input", type="hidden", name="name", value=name)
    return tag("form", hidden, button, method="post", action="/actions/restart", class_="act")


def first(text: str) -> str:
    """Start a line with a capital letter."""
    return f"{text[:1].upper()}{text[1:]}"


def calm(seconds: float) -> str:
    """Render a running time span; after two minutes without seconds, so that the page changes less often."""
    return duration(round(seconds) if seconds < 120 else seconds // 60 * 60)


def part(done: float, whole: float) -> str:
    """Render how much of something is there; a shared unit is written once."""
    some, everything = size(done), size(whole)
    number, _, unit = some.partition(" ")
    return f"{number if everything.endswith(f' {unit}') else some} of {everything}"


def dollars(amount: float) -> str:
    """Render what something costs; fractions of a cent do not matter to people."""
    return f"${amount:.2f}" if amount >= 0.005 or amount == 0 else "under $0.01"


def ago(now: float, at: object) -> str:
    """Render how long ago something was; empty where that is unknown."""
    return age(now - at) if isinstance(at, int | float) and at else ""
