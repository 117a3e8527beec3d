"""`hearmeman status`: what runs, what was fetched, what was uploaded, and whether the pod is ready."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearmeman.image import RUN_DIR


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman status`."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--ready", action="store_true", help="only ask ComfyUI: exit 0 when it is ready, else 1 and why"
    )
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="boot's run folder")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print the pod's state; 1 when supervisord does not answer."""
    from hearmeman.state_file import read_json
    from hearmeman.status import collect

    if args.ready:
        boot = read_json(args.run_dir / "boot.json")
        found = collect.readiness(boot, 0) if boot else collect.Readiness(False, f"no pod was booted in {args.run_dir}")
        print(json.dumps({"ready": found.ready, "why": found.why}) if args.json else found.why or "ready")
        return 0 if found.ready else 1
    found_status = collect.status(args.run_dir)
    print(json.dumps(found_status, indent=2) if args.json else "\n".join(lines(found_status)))
    return 1 if found_status["problem"] else 0


def lines(found: Mapping[str, Any]) -> list[str]:
    """Render the state for a person."""
    shown = []
    boot = found["boot"]
    if boot:
        image, tuning = boot.get("image", {}), boot.get("tuning", {})
        shown.append(f"image      tier {image.get('tier')}, ComfyUI {str(image.get('comfyui_rev'))[:12]}")
        shown.append(
            f"memory     {tuning.get('tier')}, {tuning.get('memory_mode')}, {' '.join(tuning.get('arguments', []))}"
        )
        shown.append(f"phases     {', '.join(f'{name} {seconds} s' for name, seconds in found['phases'].items())}")
        shown.append(f"ready      {'yes' if found['ready'] else 'no: ' + str(found['ready_why'])}")
        shown += [f"door       {words}" for words in boot.get("doors", [])]
    shown += [f"{process['name']:10} {process['what']}" for process in found["processes"]]
    shown += [f"{name:10} does not work: {why}" for name, why in found["not_working"].items()]
    shown += [f"node       {name} was not loaded: {why}" for name, why in found["failed_nodes"].items()]
    for name in ("models", "sync"):
        content = found[name]
        simple = {k: v for k, v in content.items() if isinstance(v, str | int | float | bool)} if content else {}
        text = " ".join(f"{key}={value}" for key, value in simple.items())
        shown.append(f"{name + '.json':12} {text or 'nothing yet'} ({boot.get('state_dir', '')}/{name}.json)")
    for finding in (found["machine"] or {}).get("findings", []):
        words = {True: "sound", False: "UNSOUND"}.get(finding["ok"], "unknown")
        shown.append(f"machine    {finding['name']} {words}: {finding['what']}")
    shown += [f"warning    {warning}" for warning in found["warnings"]]
    return shown + ([f"problem    {found['problem']}"] if found["problem"] else [])
