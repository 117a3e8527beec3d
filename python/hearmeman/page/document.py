"""The page as one HTML document, complete even without scripts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hearmeman.page import processes, sections, work
from hearmeman.page.blocks import Found
from hearmeman.page.html import Html, tag

SECTIONS: dict[str, tuple[Callable[[Found], Html], tuple[str, ...]]] = {
    "top": (sections.top, ("state", "boot", "now", "usage", "idle", "models")),
    "problems": (sections.problems, ("problems", "processes")),
    "comfyui": (work.comfyui, ("comfyui", "state", "now", "boot", "tails")),
    "models": (work.models, ("models", "now")),
    "sync": (work.sync, ("sync", "now", "boot")),
    "voices": (work.voices, ("voices",)),
    "start": (sections.start, ("phases", "models", "boot", "state")),
    "machine": (sections.machine, ("usage", "machine")),
    "doors": (sections.doors, ("boot",)),
    "processes": (processes.processes, ("processes", "tails", "now")),
    "logs": (processes.logs, ("logs",)),
    "about": (sections.about, ("boot",)),
}
"""Every part of the page by id, in reading order: its renderer, and the renderer's arguments."""
_COLUMNS = (
    ("comfyui",),
    ("models", "sync", "voices", "start"),
    ("machine", "doors", "processes"),
    ("logs",),
    ("about",),
)
"""Sections below each other; the two long lists are side by side if there is room."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; "
    "connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store, no-transform",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
STATIC = Path(__file__).with_name("static")
REFRESH_SECONDS = 10
"""How often a browser without scripts reloads the page."""


class Renderer:
    """Renders every section repeatedly; a section whose data has not changed is not rendered again."""

    def __init__(self) -> None:
        self._given: dict[str, dict[str, Any]] = {}
        self._parts: dict[str, Html] = {}

    def render(self, found: Found) -> dict[str, Html]:
        """Return the sections by id."""
        for name, (make, keys) in SECTIONS.items():
            given = {key: found[key] for key in keys}
            if self._given.get(name) != given:
                self._given[name], self._parts[name] = given, make(given)
        return dict(self._parts)


def document(parts: dict[str, Html], found: Found, mark: str, acts: bool) -> str:
    """Assemble the page; `mark` is where the stream continues, `acts` whether this visitor may start something."""
    grid = [tag("div", *(parts[name] for name in names), class_="column") for names in _COLUMNS]
    state = found["state"]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{state['headline']} · {found['boot'].get('pod') or 'pod'} · hearmeman"),
        tag("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
        tag("link", rel="stylesheet", href="/static/page.css"),
        tag("script", "", src="/static/page.js", defer=True),
        tag("noscript", tag("meta", http_equiv="refresh", content=str(REFRESH_SECONDS))),
    )
    body = tag(
        "body",
        tag("a", "Skip to the status", href="#main", class_="skip"),
        parts["top"],
        tag("p", "", id="connection", role="status", hidden=True),
        tag("main", parts["problems"], tag("div", *grid, class_="grid"), id="main", tabindex="-1"),
        tag("footer", tag("p", _footer(acts))),
        class_="acts" if acts else "looks",
        data_mark=mark,
        data_at=f"{time.time():.3f}",
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}"


def _footer(acts: bool) -> str:
    if acts:
        return "Viewing this page does not count as use: an idle pod stays idle."
    return "This page is read-only: restarting and speaking need ACCESS_TOKEN, or a visitor inside the pod (an SSH tunnel)."


def note(title: str, text: str) -> str:
    """Render a small page with one message."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("title", title),
        tag("link", rel="stylesheet", href="/static/page.css"),
    )
    content = tag("main", tag("h1", title), tag("p", text), tag("p", tag("a", "Back to the pod's page", href="/")))
    return f"<!doctype html>\n{tag('html', head, tag('body', content, class_='small'), lang='en')}"
