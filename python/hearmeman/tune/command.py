"""`hearmeman tune`: what this machine gets, and why."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearmeman import image
from hearmeman.tune import flags, machine, tuner

if TYPE_CHECKING:
    from hearmeman.settings.declare import Problem


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman tune`."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--models", action="store_true", help="say for each enabled model whether it fits this GPU")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print tier, memory mode and ComfyUI's arguments."""
    from hearmeman import settings as settings_module

    settings = settings_module.load(environ)
    known = flags.load_flags(flags_file())
    own, problems, dropped = own_arguments(settings.comfyui_args, known)
    if problems:
        raise settings_module.SettingsError(problems)
    memory = machine.gather(settings.models_path)
    floor = image.read_image(image.IMAGE_FILE).cuda_floor if image.IMAGE_FILE.exists() else ""
    chosen = tuner.tune(
        memory, known, settings.gpu_tier, settings.gpu_memory_mode, own, voices(settings, own), cuda_floor=floor
    )
    chosen = dataclasses.replace(chosen, warnings=(*dropped, *chosen.warnings))
    if args.models:
        return _models(settings, memory, args.json)
    if args.json:
        facts = {**dataclasses.asdict(memory), "ram_bytes": memory.ram_bytes}
        print(json.dumps({**dataclasses.asdict(chosen), "machine": facts}, indent=2))
    else:
        print("\n".join([*machine_lines(memory), *lines(chosen)]))
    return 1 if chosen.problems else 0


def _models(settings: Any, memory: machine.Memory, as_json: bool) -> int:
    """Print whether each enabled model fits; 1 when one does not."""
    from hearmeman.models import asked, catalogue
    from hearmeman.tune import models

    known = catalogue.read(Path(settings.model_catalogue))
    enabled = asked.asked_for(known, settings)
    vram = memory.gpus[0].vram_mib / 1024 if memory.gpus else 0.0
    engines = {name: tuner.VOICE_GB[name] for name in voices(settings)}
    found = models.fits(enabled, known.models, vram, engines)
    if as_json:
        print(json.dumps({"vram_gb": vram, "models": [dataclasses.asdict(fit) for fit in found]}, indent=2))
    else:
        if not memory.gpus:
            print(f"no GPU found: {memory.gpu_problem}")
        for fit in found:
            needs = "no figure" if fit.needs_gb is None else f"{fit.needs_gb:g} GB, and there are {fit.has_gb:.1f}"
            print(f"{fit.model:28} {fit.verdict:10} {needs}" + (f": {fit.advice}" if fit.advice else ""))
        if not found:
            print("no model is enabled")
    return 1 if any(fit.verdict == "too large" for fit in found) else 0


def voices(settings: Any, own: Sequence[str] = ()) -> tuple[str, ...]:
    """Name the voice engines that hold memory of ComfyUI's GPU; `own` are a person's arguments, which may choose it."""
    comfyui = flags.value_of(tuple(own), "--cuda-device") or flags.value_of(tuple(own), "--default-device") or "0"
    if str(int(settings.voice_gpu or "0")) != comfyui.split(",")[0]:
        return ()
    wanted = [name for name in tuner.VOICE_GB if getattr(settings, f"enable_{name.lower()}")]
    # Without its terms accepted XTTS does not start.
    return tuple(name for name in wanted if name != "XTTS" or settings.coqui_tos_agreed)


def machine_lines(memory: machine.Memory) -> list[str]:
    """Render what was seen of the machine."""
    gib = 1024**3
    cuda = f", CUDA up to {memory.cuda[0]}.{memory.cuda[1]}" if memory.cuda else ""
    driver = f"driver {memory.driver}{cuda}" if memory.driver else memory.gpu_problem
    gpus = ", ".join(f"{gpu.name} ({gpu.vram_mib} MiB)" for gpu in memory.gpus) or "none"
    limit = f", of which the container may use {memory.ram_bytes / gib:.1f}" if memory.is_limited else ""
    kind = memory.models.kind or "unknown"
    return [
        f"GPU          {gpus}; {driver}",
        f"RAM          {memory.host_bytes / gib:.1f} GiB{limit}",
        f"models on    {kind}{' (network)' if memory.models.is_network else ''} at {memory.models.point}",
    ]


def lines(chosen: tuner.Tuning) -> list[str]:
    """Render a tuning for a person."""
    shown = [
        f"tier         {chosen.tier}: {chosen.reasons['tier']}",
        f"memory mode  {chosen.memory_mode}: {chosen.reasons['memory_mode']}",
        f"arguments    {' '.join(chosen.arguments) or '(none)'}",
    ]
    shown += [f"  {name}: {why}" for name, why in chosen.reasons.items() if name.startswith("-")]
    shown += [f"warning: {warning}" for warning in chosen.warnings]
    return shown + [f"problem: {problem}" for problem in chosen.problems]


def own_arguments(text: str, known: Mapping[str, flags.Flag]) -> tuple[tuple[str, ...], list[Problem], list[str]]:
    """Check COMFYUI_ARGS: (arguments, problems, warnings); empty and 'auto' mean that there are none."""
    from hearmeman.settings.declare import Problem

    if text.strip().casefold() in ("", "auto"):
        return (), [], []
    words, problems, warnings = flags.check(text, known)
    return words, [Problem("COMFYUI_ARGS", problem) for problem in problems], warnings


def flags_file(image_file: Path = image.IMAGE_FILE) -> Path:
    """Choose the flags read from the image's own ComfyUI, or else the packaged ones."""
    beside = image_file.with_name("cli-flags.json")
    return beside if beside.exists() else flags.PACKAGED
