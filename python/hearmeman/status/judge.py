"""What a pod's state means: the one word for it, and what is wrong, each with what to do about it; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hearmeman.status.collect import end_of, last_end_of

SLOW_SECONDS = 30.0
"""A ComfyUI that was ready and does not answer for less than this is busy, and not gone."""
TRIES = 3
"""Starts after which a ComfyUI that never was ready counts as failing, though it may just be starting again."""
_DO = (
    "set|unset|use|remove|delete|name|attach|give|see|mount|edit|run|restart|free|put|raise|install|look|build|pull|stop|add|correct|"
    "copy|lower|choose|rename|check|try|wait|make|ask|accept|update|another"
)
_FIX = re.compile(rf"(?:[;:,.]) (?=(?:{_DO})\b)")


@dataclass(frozen=True)
class State:
    """How a pod is."""

    word: str
    """starting, ready, failing or stopped."""
    headline: str
    """A few words for a person."""
    detail: str
    """What it waits for, or why; may be empty."""


@dataclass(frozen=True)
class Problem:
    """Something that a person should know."""

    level: str
    """error: a part does not work; warning: it works, and something should be changed."""
    what: str
    """What is wrong."""
    fix: str
    """What to do about it; empty where what is wrong says it."""


def state(found: Mapping[str, Any], now: float) -> State:
    """Judge what `collect.status` found, at `now` (Unix seconds)."""
    comfyui = next((p for p in found["processes"] if p["name"] == "comfyui"), None)
    why = str(found.get("ready_why") or "")
    # Who was ready may be gone, and nobody has looked since.
    if found["ready"] and (comfyui is None or comfyui["keep"].get("pid") == found.get("ready_pid")):
        return State("ready", "Ready", "")
    if not found["boot"] or comfyui is None:
        return State("failing", "Not running", found["problem"] or why or "ComfyUI is not one of this pod's processes")
    keep = comfyui["keep"]
    if comfyui["statename"] == "STOPPED":
        return State(
            "stopped", "ComfyUI is stopped", "it was stopped by hand: start it with `hearmeman restart comfyui`"
        )
    if keep.get("waits"):
        return State("starting", "Starting", f"ComfyUI is waiting: {keep['waits']}")
    lost = now - float(found.get("ready_changed") or 0)
    if keep.get("pid") and found.get("ready_pid") == keep["pid"]:
        if lost < SLOW_SECONDS:
            return State("ready", "Ready", "ComfyUI is slow to answer")
        return State("failing", "ComfyUI does not answer", why)
    if keep.get("pid") and keep.get("starts", 0) < TRIES:
        again = keep.get("starts", 0) > 1
        return State("starting", "Starting again" if again else "Starting", _starting(keep, now, found, why))
    if keep.get("starts"):
        return State("failing", "ComfyUI does not stay up", last_end_of(keep) or why)
    return State("starting", "Starting", "ComfyUI is about to be started")


def _starting(keep: Mapping[str, Any], now: float, found: Mapping[str, Any], why: str) -> str:
    since = keep.get("since")
    nodes = len(found["boot"].get("expected_nodes", []))
    said = (
        (f"ComfyUI is loading, {round(now - since)} s so far")
        if isinstance(since, int | float)
        else "ComfyUI is loading"
    )
    said += f", with {nodes} custom nodes" if nodes else ""
    # That nothing answers is what starting means.
    return f"{said}: {why}" if why and "does not answer" not in why and "not checked" not in why else said


def problems(found: Mapping[str, Any], now: float) -> list[Problem]:
    """Name what is wrong, the worst first."""
    seen = dict.fromkeys([*_errors(found, now), *_warnings(found)])
    return sorted(seen, key=lambda problem: problem.level != "error")


def _errors(found: Mapping[str, Any], now: float) -> Iterator[Problem]:
    if found["problem"] and found["boot"]:
        yield Problem("error", found["problem"], "restart the pod if this stays")
    how = state(found, now)
    if how.word == "failing":
        yield Problem(
            "error",
            f"{how.headline}: {how.detail}",
            "`hearmeman logs comfyui` says more; `hearmeman restart comfyui` starts it again",
        )
    for name, why in found["not_working"].items():
        yield _split("error", f"{name} does not work: {why}")
    for process in found["processes"]:
        keep = process["keep"]
        gone = not keep.get("pid") and not keep.get("done") and keep.get("exit") not in (None, 0, 75)
        ended = keep.get("done") and keep.get("exit") not in (None, 0, 3)
        if process["name"] != "comfyui" and (gone or ended):
            again = "it restarts by itself; " if gone else ""
            yield Problem(
                "error", f"{process['name']}: {end_of(keep)}", f"{again}`hearmeman logs {process['name']}` says more"
            )
    for name, why in found["failed_nodes"].items():
        yield Problem(
            "error",
            f"the custom node {name} was not loaded: {why}",
            "workflows that use it fail; update or remove it, then `hearmeman restart comfyui`",
        )
    files = ((found["models"] or {}).get("files") or {}).values()
    for row in files:
        if row.get("state") == "failed":
            place = str(row.get("to"))
            # The reason begins with the place too.
            why = str(row.get("problem")).removeprefix(f"{place}: ")
            yield _split("error", f"{place} was not fetched: {why}", "`hearmeman restart models` tries again")
    sync = found["sync"] or {}
    if sync.get("problem"):
        yield _split(
            "error", f"outputs are not uploaded: {sync['problem']}", "`hearmeman upload --test` tries the bucket"
        )
    elif sync.get("failing_files"):
        first = (sync.get("failing") or [{}])[0]
        yield _split(
            "error",
            f"{sync['failing_files']} outputs cannot be uploaded; {first.get('file')}: {first.get('why')}",
            "they are tried again by themselves and stay on the volume",
        )
    if sync.get("workspace_problem"):
        yield _split("error", f"the workspace is not saved: {sync['workspace_problem']}")
    for finding in (found["machine"] or {}).get("findings", []):
        if finding.get("ok") is False:
            yield _split(
                "error",
                f"{finding['name']} is faulty: {finding['what']}",
                "another machine may be fine: stop this pod and create a new one",
            )


def _warnings(found: Mapping[str, Any]) -> Iterator[Problem]:
    for warning in found["warnings"]:
        yield _split("warning", str(warning))
    opened = [port for port in found["boot"].get("ports", []) if port.get("public") and not port.get("guard")]
    if opened:
        names = " and ".join(f"{port['service']} ({port['port']})" for port in opened)
        yield Problem("warning", f"anyone who knows the address can use {names}", "set ACCESS_TOKEN to require a token")


def _split(level: str, text: str, fix: str = "") -> Problem:
    """Take what to do out of a sentence that says it, as ours do at their end."""
    *_, last = [None, *_FIX.finditer(text)]
    if last is None:
        return Problem(level, text, fix)
    return Problem(level, text[: last.start()], text[last.end() :])
