"""The gate's pages: the login form, and a note while a service is not up."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from aiohttp import web

from hearmeman.page.document import STATIC
from hearmeman.page.html import Child, Html, tag

_STYLE = (STATIC / "page.css").read_text(encoding="utf-8")
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    # By its hash: a page on another service's port can load nothing of its own.
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _page(title: str, *content: Child, more: Html | None = None) -> str:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        more,
        tag("title", title),
        tag("style", Html(_STYLE)),
    )
    brand = tag("p", tag("span", "hearmeman", class_="brand"), class_="names")
    body = tag("body", tag("main", brand, *content), class_="small")
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}"


def for_browser(headers: Mapping[str, str]) -> bool:
    """Tell whether the request comes from a person's browser, not a program."""
    return "text/html" in headers.get("Accept", "")


def answer(headers: Mapping[str, str], page: str, state: str) -> web.Response:
    """Answer a browser while something does not work; `state` is for scripts.

    Cloudflare, and so RunPod's proxy, puts a page of its own in the place of a 5xx answer's: behind it the status is
    200.
    """
    status = 200 if "Cf-Ray" in headers else 503
    more = {**HEADERS, "Retry-After": "3", "X-Hearmeman-State": state}
    return web.Response(status=status, text=page, content_type="text/html", headers=more)


def held(reason: str, ends: str = "") -> str:
    """Render why a pod could not start, and when it ends itself."""
    title = "This pod could not start"
    advice = (
        "Correct the variables and restart the pod, or stop it: it costs money while it waits. "
        "Its log, and SSH if PUBLIC_KEY is set, show the same."
    )
    countdown = tag("p", f"The pod {ends}; an SSH session counts as use.") if ends else None
    return _page(title, tag("h1", title), tag("pre", reason), tag("p", advice), countdown)


def login(action: str, next_path: str, why: str = "") -> str:
    """Render the login form; `next_path` is where the browser goes afterwards."""
    field = tag(
        "input",
        type="password",
        name="token",
        id="token",
        autocomplete="current-password",
        required=True,
        autofocus=True,
        aria_describedby="why" if why else None,
        aria_invalid="true" if why else None,
    )
    form = tag(
        "form",
        tag("input", type="hidden", name="next", value=next_path),
        tag("label", "ACCESS_TOKEN", field),
        tag("p", why, class_="error", id="why", role="alert") if why else None,
        tag("button", "Enter"),
        method="post",
        action=action,
    )
    lead = tag("p", "It is the value of the pod's variable ACCESS_TOKEN.", class_="quiet")
    return _page("Token needed", tag("h1", "This pod requires its token"), lead, form)


def down(service: str, page: str = "") -> str:
    """Render the note that a service does not answer yet; the browser asks again by itself. `page` is the pod's page."""
    head = tag("h1", tag("span", "", class_="dot", aria_hidden="true"), f"{service} does not answer yet")
    text = tag("p", "It is starting or restarting. This page refreshes by itself.")
    look = tag("p", tag("a", "The pod's page", href=page), " shows its progress.") if page else None
    again = tag("meta", http_equiv="refresh", content="3")
    return _page(f"{service} is starting", tag("div", head, class_="state-starting"), text, look, more=again)


def local_path(text: str) -> str:
    """Return `text` if it is a path on this host, else '/'; a login must not redirect to another site."""
    plain = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and "\\" not in text
    return text if plain and not text.startswith("/_door/") else "/"
