"""The pages that the gate shows: the login form, and a note while a service is not up."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from aiohttp import web

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
{more}<title>{title}</title><style>
:root{{color-scheme:light dark}}
body{{font:16px/1.5 system-ui,sans-serif;max-width:24rem;margin:20vh auto 0;padding:0 1rem}}
input,button{{font:inherit;width:100%;box-sizing:border-box;padding:.5rem;margin:.25rem 0}}
.why{{color:#c33}}
pre{{white-space:pre-wrap}}
</style></head><body>{body}</body></html>
"""
_FORM = """<h1>This pod asks for its token</h1>{why}
<form method="post" action="{action}"><input type="hidden" name="next" value="{next}">
<label>ACCESS_TOKEN<input type="password" name="token" autocomplete="current-password" required autofocus></label>
<button>Enter</button></form>
"""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def for_browser(headers: Mapping[str, str]) -> bool:
    """Tell whether a person asks, and not a program."""
    return "text/html" in headers.get("Accept", "")


def answer(headers: Mapping[str, str], page: str, state: str) -> web.Response:
    """Answer a browser while something does not work; `state` is a word for scripts.

    Cloudflare, and so RunPod's proxy, puts a page of its own in the place of a 5xx answer's: behind it the status is 200.
    """
    status = 200 if "Cf-Ray" in headers else 503
    more = {**HEADERS, "Retry-After": "3", "X-Hearmeman-State": state}
    return web.Response(status=status, text=page, content_type="text/html", headers=more)


def held(reason: str) -> str:
    """Render why a pod could not start."""
    body = (
        f"<h1>This pod could not start</h1><pre>{escape(reason)}</pre><p>Set the variables right and restart the pod, "
        "or stop it: it costs money while it waits. Its log, and SSH if PUBLIC_KEY is set, say the same.</p>"
    )
    return _PAGE.format(title="This pod could not start", more="", body=body)


def login(action: str, next_path: str, why: str = "") -> str:
    """Render the login form; `next_path` is where the browser goes afterwards."""
    told = f'<p class="why">{escape(why)}</p>' if why else ""
    body = _FORM.format(action=escape(action), next=escape(next_path), why=told)
    return _PAGE.format(title="Token needed", more="", body=body)


def down(service: str) -> str:
    """Render the note that a service does not answer yet; the browser asks again by itself."""
    body = (
        f"<h1>{escape(service)} does not answer yet</h1><p>It is starting, or was restarted. This page tries again.</p>"
    )
    return _PAGE.format(
        title=f"{escape(service)} is starting", more='<meta http-equiv="refresh" content="3">', body=body
    )


def local_path(text: str) -> str:
    """Give `text` if it is a path on this host, else '/'; a login must not send a browser elsewhere."""
    plain = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and "\\" not in text
    return text if plain and not text.startswith("/_door/") else "/"
