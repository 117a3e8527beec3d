"""`hearmeman tune`: what this machine gets, and why."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from hearmeman.tune import flags, machine, tuner


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman tune`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print tier, memory mode and ComfyUI's arguments."""
    from hearmeman import settings as settings_module

    settings = settings_module.load(environ)
    known = flags.load_flags(flags_file())
    own, problems = own_arguments(settings.comfyui_args, known)
    if problems:
        raise settings_module.SettingsError("settings are wrong:\n" + "\n".join(f"  {p}" for p in problems))
    memory = machine.gather()
    chosen = tuner.tune(memory, known, settings.gpu_tier, settings.gpu_memory_mode, own)
    if args.json:
        facts = {**dataclasses.asdict(memory), "ram_bytes": memory.ram_bytes}
        print(json.dumps({**dataclasses.asdict(chosen), "machine": facts}, indent=2))
    else:
        print("\n".join(lines(chosen)))
    return 0


def lines(chosen: tuner.Tuning) -> list[str]:
    """Render a tuning for a person."""
    shown = [
        f"tier         {chosen.tier}: {chosen.reasons['tier']}",
        f"memory mode  {chosen.memory_mode}: {chosen.reasons['memory_mode']}",
        f"arguments    {' '.join(chosen.arguments) or '(none)'}",
    ]
    shown += [f"  {name}: {why}" for name, why in chosen.reasons.items() if name.startswith("-")]
    return shown + [f"warning: {warning}" for warning in chosen.warnings]


def own_arguments(text: str, known: Mapping[str, flags.Flag]) -> tuple[tuple[str, ...], list[str]]:
    """Check COMFYUI_ARGS; empty and 'auto' mean that there are none."""
    return ((), []) if text.strip() in ("", "auto") else flags.check(text, known)


def flags_file(image_file: Path = Path("/opt/hearmeman/image.json")) -> Path:
    """Choose the flags read from the image's own ComfyUI, or else the packaged ones."""
    beside = image_file.with_name("cli-flags.json")
    return beside if beside.exists() else flags.PACKAGED
