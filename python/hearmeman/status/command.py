"""`hearmeman status`: what runs, what was fetched, what was uploaded, and whether the pod is ready."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hearmeman import terminal
from hearmeman.image import RUN_DIR
from hearmeman.status.collect import countdown

WATCH_SECONDS = 1.0
_COLORS = {"ready yes": "green", "ready no": "yellow", "warning": "yellow", "problem": "red", "node": "red"}
_PHASES = {"comfyui_exec": "ComfyUI started", "comfyui_ready": "ComfyUI ready"}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman status`."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--ready", action="store_true", help="only ask ComfyUI: exit 0 when it is ready, else 1 and why"
    )
    parser.add_argument("--watch", action="store_true", help="show it again every second, until Ctrl-C")
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="boot's run folder")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print the pod's state; 1 when supervisord does not answer."""
    from hearmeman.state_file import read_json
    from hearmeman.status import collect

    if args.ready:
        boot = read_json(args.run_dir / "boot.json")
        ready = collect.readiness(boot, 0) if boot else collect.Readiness(False, f"no pod was booted in {args.run_dir}")
        print(json.dumps({"ready": ready.ready, "why": ready.why}) if args.json else ready.why or "ready")
        return 0 if ready.ready else 1
    if args.watch:
        return _watch(args)
    found = collect.status(args.run_dir)
    print(json.dumps(found, indent=2) if args.json else "\n".join(lines(found)))
    return 1 if found["problem"] else 0


def _watch(args: argparse.Namespace) -> int:
    """Show the state again and again; with --json one document a line."""
    from hearmeman.status import collect

    redraws = sys.stdout.isatty() and not args.json
    try:
        while True:
            found = collect.status(args.run_dir)
            text = json.dumps(found) if args.json else "\n".join(lines(found))
            # To the corner, each line's rest and all below it wiped: a screen that is cleared first flickers.
            print("\x1b[H" + text.replace("\n", "\x1b[K\n") + "\x1b[K\n\x1b[J" if redraws else text, flush=True)
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return 0


def lines(found: Mapping[str, Any], now: float | None = None) -> list[str]:
    """Render the state for a person, at `now` (Unix seconds; the present by default)."""
    shown = []
    color = ""
    for line in terminal.pairs(_rows(found, time.time() if now is None else now)):
        # A line that goes on has no name, and the colour of the one before.
        if line[:1] not in ("", " "):
            color = next((color for start, color in _COLORS.items() if " ".join(line.split()).startswith(start)), "")
            color = "red" if "UNSOUND" in line or "does not work" in line or " died" in line else color
        shown.append(terminal.colored(line, color) if color else line)
    return shown


def _rows(found: Mapping[str, Any], now: float) -> Iterator[tuple[str, str]]:
    boot = found["boot"]
    if boot:
        image, tuning = boot.get("image", {}), boot.get("tuning", {})
        yield "image", f"tier {image.get('tier')}, ComfyUI {str(image.get('comfyui_rev'))[:12]}"
        arguments = " ".join(tuning.get("arguments", []))
        yield "memory", ", ".join(filter(None, (tuning.get("tier"), tuning.get("memory_mode"), arguments)))
        yield (
            "phases",
            ", ".join(
                f"{_PHASES.get(name, name)} {terminal.duration(seconds)}" for name, seconds in found["phases"].items()
            ),
        )
        yield "ready", "yes" if found["ready"] else f"no: {found['ready_why']}"
        for words in boot.get("doors", []):
            yield "door", words
    for process in found["processes"]:
        yield process["name"], process["what"]
    for name, why in found["not_working"].items():
        yield name, f"does not work: {why}"
    for name, why in found["failed_nodes"].items():
        yield "node", f"{name} was not loaded: {why}"
    if boot:
        yield "fetch", _fetch(found["models"], now)
        yield "upload", _upload(found["sync"], now)
    if idle := found.get("idle"):
        uses = ", ".join(idle.get("uses", [])) or "nothing"
        yield "idle", f"in use: {uses}; the pod {countdown(idle, now)}"
    for finding in (found["machine"] or {}).get("findings", []):
        words = {True: "sound", False: "UNSOUND"}.get(finding["ok"], "unknown")
        yield "machine", f"{finding['name']} {words}: {finding['what']}"
    for warning in found["warnings"]:
        yield "warning", warning
    if found["problem"]:
        yield "problem", found["problem"]


def _fetch(state: Mapping[str, Any] | None, now: float) -> str:
    if not state:
        return "no model was asked for yet"
    text = f"{state.get('state')}: {state.get('files_present', 0)} of {state.get('files_total', 0)} files"
    text += f", {terminal.size(state.get('bytes_done', 0))} of {terminal.size(state.get('bytes_total', 0))}"
    if state.get("state") == "fetching":
        left = state.get("seconds_left")
        text += f" at {terminal.rate(state.get('bytes_per_second', 0))}"
        text += f", {terminal.duration(left)} left" if left is not None else ""
    failed = state.get("files_failed", 0)
    return text + (f", {failed} failed" if failed else "") + _when(state, now)


def _upload(state: Mapping[str, Any] | None, now: float) -> str:
    if not state:
        return "nothing is uploaded: set ENABLE_R2_SYNC=true"
    text = f"{state.get('uploaded_files', 0)} files sent, {terminal.size(state.get('uploaded_bytes', 0))}"
    text += f"; {state.get('backlog_files', 0)} wait, {terminal.size(state.get('backlog_bytes', 0))}"
    problem = state.get("problem")
    return text + (f"; {problem}" if problem else "") + _when(state, now)


def _when(state: Mapping[str, Any], now: float) -> str:
    return f" ({terminal.age(now - state['updated'])})" if isinstance(state.get("updated"), int | float) else ""
