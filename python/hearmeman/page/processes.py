"""The page's sections about the pod's processes and their logs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from hearmeman.page.blocks import NOT_FROM_HERE, Found, calm, card, first, restart, sentence
from hearmeman.page.html import Html, tag

_RANKS = {"failed": 0, "stopped": 1, "waiting": 1, "partly done": 1, "done": 3}


def processes(found: Found) -> Html:
    """List the processes with their last lines; those not running come first."""
    ranked = sorted(found["processes"], key=lambda one: _RANKS.get(_word(one), 2))
    shown = [_process(one, found["tails"].get(one["name"], []), found["now"]) for one in ranked]
    return card("processes", "Processes", tag("ul", *shown, class_="rows"))


def _word(one: Mapping[str, Any]) -> str:
    keep = one["keep"]
    if keep.get("done"):
        return {0: "done", 3: "partly done"}.get(keep.get("exit"), "failed")
    if keep.get("pid"):
        return "running"
    if one["statename"] == "STOPPED":
        return "stopped"
    return "waiting" if keep.get("waits") or not keep.get("starts") else "failed"


def _process(one: Mapping[str, Any], tail: list[Mapping[str, Any]], now: float) -> Html:
    keep, name, word = one["keep"], one["name"], _word(one)
    since = keep.get("since")
    up = tag("span", calm(now - since), class_="up") if word == "running" and isinstance(since, int | float) else None
    last = keep.get("last_line") or keep.get("why")
    failed = tag("p", last, class_="error") if word == "failed" and last else None
    restarts = max(0, int(keep.get("starts") or 0) - 1)
    again = tag("span", f"{restarts} restart{'' if restarts == 1 else 's'}", class_="restarts") if restarts else None
    lines = tag("ol", *(tag("li", line["text"]) for line in tail), class_="log") if tail else None
    button = restart(name) if name not in NOT_FROM_HERE else None
    body = [tag("p", sentence(first(one["what"])), class_="what"), lines, button]
    head = tag("summary", tag("b", name), tag("span", word, class_=f"word {word.partition(' ')[0]}"), again, up)
    return tag("li", tag("details", head, *body, data_key=f"process-{name}"), failed, data_key=name)


def logs(found: Found) -> Html:
    """Show the last lines of all processes."""
    rows = [
        tag(
            "li",
            tag("time", time.strftime("%H:%M:%S", time.gmtime(line["at"]))),
            tag("b", line["name"]),
            tag("span", line["text"]),
        )
        for line in found["logs"]
    ]
    lines = tag("ol", *rows)
    content = tag(
        "div", lines, class_="log tall", tabindex="0", role="log", aria_label="Last log lines", aria_live="off"
    )
    return card("logs", "Logs", content, wide=True, note="UTC; hearmeman logs -f in a shell shows the same")
