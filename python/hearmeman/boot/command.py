"""`hearmeman boot`: plan the pod, print the plan, and become supervisord."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hearmeman import __version__
from hearmeman.errors import HearmemanError, UsageError
from hearmeman.image import IMAGE_FILE, NODES_DIR, RUN_DIR, Image, read_image


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman boot`."""
    parser.add_argument(
        "role",
        nargs="?",
        metavar="worker | COMMAND",
        help="worker: take jobs from RunPod Serverless; any other command of the image: run it instead of the pod; "
        "nothing: be a pod",
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="the command's arguments")
    parser.add_argument("--plan", action="store_true", help="print the plan and start nothing")
    parser.add_argument("--json", action="store_true", help="with --plan: print JSON")
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="folder for state that lasts until the pod stops")
    parser.add_argument("--image-file", type=Path, default=IMAGE_FILE, help="the image's image.json")
    parser.add_argument("--nodes-dir", type=Path, default=NODES_DIR, help="the image's custom nodes")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Boot the pod; comes back only with --plan, an error, or the end of a pod that was held open."""
    if args.role and args.role != "worker":
        _instead(args.role, args.arguments)
    if args.arguments:
        raise UsageError(f"{args.arguments[0]} comes after `worker`: put options before it")
    if args.role == "worker":
        environ = {**_of_a_worker(os.access("/runpod-volume", os.W_OK)), **environ, "ENABLE_WORKER": "true"}
    try:
        return _boot(args, environ)
    except HearmemanError as error:
        from hearmeman.boot import hold

        if args.plan or not hold.is_wanted(environ):
            raise
        return hold.hold(error, environ, args.run_dir, sys.executable)


def _instead(command: str, arguments: Sequence[str]) -> NoReturn:
    """Become a command: `docker run IMAGE bash`, and tools such as SkyPilot, whose own start is the container's command."""
    found = shutil.which(command)
    if found is None:
        raise UsageError(f"boot takes `worker`, or a command to run in place of the pod, but {command!r} is neither")
    sys.stdout.flush()
    os.execv(found, [command, *arguments])


def _of_a_worker(has_volume: bool) -> dict[str, str]:
    """Give what a worker does unless it is set otherwise: nobody looks at it, and one that cannot start is to end."""
    found = {"COMFYUI_HOST": "127.0.0.1", "HOLD_ON_ERROR": "false"}
    return {**found, "VOLUME_DIR": "/runpod-volume"} if has_volume else found


def _boot(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from hearmeman.boot import execute, facts
    from hearmeman.boot import plan as planner
    from hearmeman.settings.running import is_running, with_given
    from hearmeman.tune import command as tune_command
    from hearmeman.tune import flags, machine, tuner

    clock = _Clock(facts.boot_started())
    image = read_image(args.image_file)
    known = flags.load_flags(tune_command.flags_file(args.image_file))
    # In a running pod the ports are taken by the pod itself, and its secrets are where they are needed.
    running = args.plan and is_running(args.run_dir)
    given = with_given(environ, args.run_dir) if running else environ
    settings, merged, failed, own, dropped = _load({**image.env, **given}, known)
    clock.mark("settings")
    memory = machine.gather(settings.models_path)
    clock.mark("gpu")
    here = facts.gather(settings, memory, args.nodes_dir, Path(image.comfyui_main), running)
    clock.mark("storage")
    tuning = tuner.tune(
        here.memory,
        known,
        settings.gpu_tier,
        settings.gpu_memory_mode,
        own,
        tune_command.voices(settings, own),
        cuda_floor=image.cuda_floor,
    )
    tuning = dataclasses.replace(tuning, warnings=(*dropped, *tuning.warnings))
    plan = planner.make_plan(settings, here, image, tuning, merged, str(args.run_dir), sys.executable, failed)
    clock.mark("plan")
    text = "\n".join(lines(plan, settings, here, image, tuning))
    if args.plan:
        shown = {"image": image.raw, "tuning": dataclasses.asdict(tuning), "plan": dataclasses.asdict(plan)}
        print(json.dumps(shown, indent=2) if args.json else text)
        return 0
    state = Path(settings.state_path)
    config = execute.prepare(plan, args.run_dir, merged, sys.executable, clock.started)
    clock.mark("prepared")
    print(text, flush=True)
    record = {**_record(plan, settings, here, image, tuning), "started": time.time() - clock.now()}
    record |= {"started_boottime": clock.started, "phases": clock.phases, "run_dir": str(args.run_dir)}
    # Where ComfyUI could put a link in its way, root writes nothing.
    for folder in (args.run_dir,) if here.ownerless else (args.run_dir, state):
        execute.write_state(folder / "boot.json", record)
    execute.become_supervisord(config, plan.shell or {}, sys.executable, plan.separate)
    raise AssertionError("exec came back")


def _record(plan: Any, settings: Any, here: Any, image: Image, tuning: Any) -> dict[str, Any]:
    """Make what the door and `hearmeman status` know of this boot."""
    from hearmeman.boot import voices

    status = next((door for door in plan.doors if door.variable == "STATUS_PORT"), None)
    listens = [(host, status.port) for host in status.hosts] if status and not settings.gated else []
    pod = settings.runpod_pod_id
    return {
        "image": image.raw,
        "tuning": dataclasses.asdict(tuning),
        "machine": dataclasses.asdict(here.memory),
        "volume": {
            "path": settings.volume_dir,
            "is_mount": here.volume_is_mount,
            "kind": here.volume.kind,
            "id": settings.runpod_volume_id,
        },
        "processes": [
            {"name": p.name, "argv": p.argv, "user": p.user.name, "once": p.once, "after": [*p.after, *p.needs]}
            for p in plan.processes
        ],
        "given": sorted({name for p in plan.processes for name in p.secrets}),
        "doors": [door.words() for door in plan.doors],
        "ports": [_port(door, settings) for door in plan.doors],
        "pod": pod,
        "output": settings.output_path,
        "digest": settings.image_digest,
        "dollars_per_hour": settings.dollars_per_hour,
        "gated": settings.gated,
        "voices": voices.urls(settings, {process.name for process in plan.processes}),
        "failed": plan.failed,
        "warnings": plan.warnings,
        "state_dir": settings.state_path,
        "separate": plan.separate,
        "comfyui_url": plan.comfyui_url,
        "expected_nodes": [name for path in plan.node_links if (name := Path(path).name) not in image.silent_nodes],
        "status_listens": listens,
        "origins": [f"{pod}-{door.port}.proxy.runpod.net" for door in plan.doors] if pod != "local" else [],
    }


def _port(door: Any, settings: Any) -> dict[str, Any]:
    ssh = (settings.runpod_public_ip, settings.runpod_tcp_port_22)
    return {
        "service": door.service,
        "port": door.port,
        "guard": door.guard,
        "public": door.is_public,
        "words": door.words(),
        "address": door.address(settings.runpod_pod_id, ssh),
    }


def lines(plan: Any, settings: Any, here: Any, image: Image, tuning: Any) -> list[str]:
    """Render the plan for a person."""
    from hearmeman.door import ports as doors

    volume = here.places[0]
    mounted = "mounted" if here.volume_is_mount else "not mounted"
    kind = f"{here.volume.kind}{', network' if here.volume.is_network else ''}" if here.volume.kind else "unknown"
    memory = here.memory
    gpus = ", ".join(f"{gpu.name} ({gpu.vram_mib} MiB)" for gpu in memory.gpus) or "none"
    shown = [
        f"hearmeman {__version__}: image for tier {image.tier}, ComfyUI {image.comfyui_rev[:12]}",
        f"  volume     {volume.path}, {mounted}, {kind}, {volume.free_bytes / 1e9:.1f} GB free, "
        f"{here.volume_used:.0%} used",
        f"  gpu        {gpus}" + (f", driver {memory.driver}" if memory.driver else ""),
        f"  memory     {tuning.tier}, {tuning.memory_mode}: {tuning.reasons['memory_mode']}",
        f"  arguments  {' '.join(tuning.arguments) or '(none)'}",
        f"  nodes      {len(plan.node_links)} from the image, {len(here.volume_nodes)} from the volume",
    ]
    for process in plan.processes:
        notes = [f"as {process.user.name}"] if not process.user.whole else []
        notes += ["once"] if process.once else []
        notes += [f"after {', '.join((*process.after, *process.needs))}"] if process.after or process.needs else []
        notes += [f"gets {', '.join(process.secrets)}"] if process.secrets else []
        notes.append(f"stops in stage {process.stop_stage} within {process.stop_seconds:g} s")
        shown.append(f"  process    {process.name}: {'; '.join(notes)}")
    shown += [f"  door       {words}" for words in doors.words(plan.doors)]
    if settings.authorized_keys and settings.runpod_public_ip and settings.runpod_tcp_port_22:
        shown.append(f"  ssh        ssh root@{settings.runpod_public_ip} -p {settings.runpod_tcp_port_22}")
    if plan.withheld:
        shown.append(f"  withheld   {', '.join(plan.withheld)}: they look like secrets, so no process gets them")
    shown += [f"  NOT WORKING {name}: {why}" for name, why in (plan.failed or {}).items()]
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


def _load(
    environ: Mapping[str, str], known: Any
) -> tuple[Any, dict[str, str], dict[str, str], tuple[str, ...], list[str]]:
    from hearmeman.settings import SettingsError, canonical, load_for_boot
    from hearmeman.tune.command import own_arguments

    own, problems, warnings = own_arguments(canonical(environ).get("COMFYUI_ARGS", ""), known)
    try:
        settings, left, failed = load_for_boot(environ)
    except SettingsError as error:
        raise SettingsError([*error.problems, *problems]) from error
    if problems:
        raise SettingsError(problems)
    return settings, left, failed, own, warnings
