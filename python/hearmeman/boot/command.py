"""`hearmeman boot`: plan the pod, print the plan, and become supervisord."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearmeman import __version__
from hearmeman.boot.image import IMAGE_FILE, Image, read_image

RUN_DIR = Path("/run/hearmeman")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman boot`."""
    parser.add_argument("--plan", action="store_true", help="print the plan and start nothing")
    parser.add_argument("--json", action="store_true", help="with --plan: print JSON")
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="folder for what lasts until the pod stops")
    parser.add_argument("--image-file", type=Path, default=IMAGE_FILE, help="the image's image.json")
    parser.add_argument("--nodes-dir", type=Path, default=Path("/opt/comfyui-nodes"), help="the image's custom nodes")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Boot the pod; comes back only with --plan or an error."""
    from hearmeman.boot import execute, facts
    from hearmeman.boot import plan as planner
    from hearmeman.tune import command as tune_command
    from hearmeman.tune import flags, machine, tuner

    clock = _Clock(facts.boot_started())
    image = read_image(args.image_file)
    merged = {**image.env, **environ}
    known = flags.load_flags(tune_command.flags_file(args.image_file))
    settings, own = _load(merged, known)
    clock.mark("settings")
    here = facts.gather(settings, machine.gather(), args.nodes_dir, Path(image.comfyui_main))
    clock.mark("facts")
    tuning = tuner.tune(here.memory, known, settings.gpu_tier, settings.gpu_memory_mode, own)
    plan = planner.make_plan(settings, here, image, tuning, merged, str(args.run_dir), sys.executable)
    clock.mark("plan")
    if args.plan:
        shown = {"image": image.raw, "tuning": dataclasses.asdict(tuning), "plan": dataclasses.asdict(plan)}
        print(json.dumps(shown, indent=2) if args.json else "\n".join(lines(plan, here, image, tuning)))
        return 0
    state = Path(settings.state_path)
    config = execute.prepare(plan, args.run_dir, merged, sys.executable, state, clock.started)
    clock.mark("prepared")
    print("\n".join(lines(plan, here, image, tuning)), flush=True)
    record = {
        "started": time.time() - clock.now(),
        "phases": clock.phases,
        "image": image.raw,
        "tuning": dataclasses.asdict(tuning),
        "processes": [{"name": p.name, "argv": p.argv, "once": p.once, "after": p.after} for p in plan.processes],
        "warnings": plan.warnings,
        "run_dir": str(args.run_dir),
    }
    execute.write_state(state / "boot.json", record)
    execute.become_supervisord(config, environ, sys.executable)
    raise AssertionError("exec came back")


def lines(plan: Any, here: Any, image: Image, tuning: Any) -> list[str]:
    """Render the plan for a person."""
    volume = here.places[0]
    mounted = "mounted" if here.volume_is_mount else "not mounted"
    shown = [
        f"hearmeman {__version__}: image for tier {image.tier}, ComfyUI {image.comfyui_rev[:12]}",
        f"  volume     {volume.path}, {mounted}, {volume.free_bytes / 1e9:.1f} GB free",
        f"  memory     {tuning.tier}, {tuning.memory_mode}: {tuning.reasons['memory_mode']}",
        f"  arguments  {' '.join(tuning.arguments) or '(none)'}",
        f"  nodes      {len(plan.node_links)} from the image, {len(here.volume_nodes)} from the volume",
    ]
    for process in plan.processes:
        notes = ["once"] if process.once else []
        notes += [f"after {process.after}"] if process.after else []
        notes += [f"is given {', '.join(process.secrets)}"] if process.secrets else []
        notes.append(f"stops in stage {process.stop_stage} within {process.stop_seconds:g} s")
        shown.append(f"  process    {process.name}: {'; '.join(notes)}")
    if plan.withheld:
        shown.append(f"  withheld   {', '.join(plan.withheld)}: they look secret, no process is given them")
    return shown + [f"  warning    {warning}" for warning in plan.warnings]


class _Clock:
    """Seconds since the entrypoint's start, by phase."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.phases: dict[str, float] = {}

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started

    def mark(self, phase: str) -> None:
        self.phases[phase] = round(self.now(), 3)


def _load(environ: Mapping[str, str], known: Any) -> tuple[Any, tuple[str, ...]]:
    from hearmeman.settings import SettingsError, load
    from hearmeman.tune.command import own_arguments

    own, problems = own_arguments(environ.get("COMFYUI_ARGS", ""), known)
    told = "\n".join(f"  {problem}" for problem in problems)
    try:
        settings = load(environ, whole=True)
    except SettingsError as error:
        raise SettingsError("\n".join(part for part in (str(error), told) if part)) from error
    if problems:
        raise SettingsError(f"settings are wrong, nothing was started:\n{told}")
    return settings, own
