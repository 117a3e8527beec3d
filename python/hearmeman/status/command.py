"""`hearmeman status`: what runs, what was fetched, what was uploaded, and whether the pod is ready."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hearmeman import terminal
from hearmeman.image import RUN_DIR
from hearmeman.status.collect import countdown

WATCH_SECONDS = 1.0
_COLORS = {"pod Ready": "green", "pod Starting": "yellow", "pod ": "red", "warning": "yellow", "error": "red"}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman status`."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--ready", action="store_true", help="only check ComfyUI: exit 0 when it is ready, else 1 and say why"
    )
    parser.add_argument("--watch", action="store_true", help="refresh every second, until Ctrl-C")
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
            text = json.dumps(found) if args.json else "\n".join(_fitted(lines(found)) if redraws else lines(found))
            # To the corner, each line's rest and all below it wiped: a screen that is cleared first flickers.
            print("\x1b[H" + text.replace("\n", "\x1b[K\n") + "\x1b[K\n\x1b[J" if redraws else text, flush=True)
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return 0


def _fitted(shown: list[str]) -> list[str]:
    """Leave out what the window has no rows for: a screen that scrolls cannot be drawn over."""
    rows = shutil.get_terminal_size((80, 24)).lines - 1
    if len(shown) <= rows:
        return shown
    return [*shown[: rows - 1], terminal.colored(f"... {len(shown) - rows + 1} more lines in a taller window", "dim")]


def lines(found: Mapping[str, Any], now: float | None = None) -> list[str]:
    """Render the state for a person, at `now` (Unix seconds; the present by default)."""
    shown = []
    color = ""
    for line in terminal.pairs(_rows(found, time.time() if now is None else now)):
        # A line that goes on has no name, and the colour of the one before.
        if line[:1] not in ("", " "):
            color = next((color for start, color in _COLORS.items() if " ".join(line.split()).startswith(start)), "")
            color = "red" if "UNSOUND" in line or " died" in line else color
        shown.append(terminal.colored(line, color) if color else line)
    return shown


def _rows(found: Mapping[str, Any], now: float) -> Iterator[tuple[str, str]]:
    from hearmeman.status import judge
    from hearmeman.status.timeline import timeline

    boot, how = found["boot"], judge.state(found, now)
    # What fails is said below, with what to do about it.
    said = [f"{how.headline}: {how.detail}" if how.detail and (how.word != "failing" or not boot) else how.headline]
    said += [f"up {terminal.duration(now - boot['started'])}"] if boot.get("started") else []
    if idle := found.get("idle"):
        said += filter(None, [countdown(idle, now)])
    yield "pod", ", ".join(said)
    if not boot:
        return
    for problem in judge.problems(found, now):
        yield problem.level, f"{problem.what}; {problem.fix}" if problem.fix else problem.what
    steps = (f"{step.what} {terminal.duration(step.at)}" for step in timeline(found["phases"]))
    yield "start", "; ".join(steps)
    exits = [process["keep"].get("exit") for process in found["processes"] if process["name"] == "models"]
    unbegun = not found["models"] and any(exits)
    yield "fetch", "it did not begin, see models below" if unbegun else fetch_words(found["models"], now)
    yield "upload", _upload(found["sync"], now)
    if idle:
        yield "in use", ", ".join(idle.get("uses", [])) or "nothing"
    for words in boot.get("doors", []):
        yield "door", words
    for process in found["processes"]:
        yield process["name"], process["what"]
    for finding in (found["machine"] or {}).get("findings", []):
        words = {True: "sound", False: "UNSOUND"}.get(finding["ok"], "unknown")
        yield "machine", f"{finding['name']} {words}: {finding['what']}"
    image, tuning = boot.get("image", {}), boot.get("tuning", {})
    yield "image", f"tier {image.get('tier')}, ComfyUI {str(image.get('comfyui_rev'))[:12]}"
    arguments = " ".join(tuning.get("arguments", []))
    yield "memory", ", ".join(filter(None, (tuning.get("tier"), tuning.get("memory_mode"), arguments)))


def fetch_words(state: Mapping[str, Any] | None, now: float) -> str:
    """Say how far the fetch of models is, by what it noted of itself, at `now` (Unix seconds)."""
    if not state:
        return "no model was requested yet"
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
    text += f"; {state.get('backlog_files', 0)} waiting, {terminal.size(state.get('backlog_bytes', 0))}"
    problem = state.get("problem")
    return text + (f"; {problem}" if problem else "") + _when(state, now)


def _when(state: Mapping[str, Any], now: float) -> str:
    return f" ({terminal.age(now - state['updated'])})" if isinstance(state.get("updated"), int | float) else ""
