"""Settings and facts to the pod's process table; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from hearmeman.boot.facts import Machine
from hearmeman.boot.image import Image
from hearmeman.errors import HearmemanError
from hearmeman.settings import SECRETS, Settings
from hearmeman.tune.tuner import Tuning

MIN_FREE_BYTES = 64 * 1024**2
_MARGIN_SECONDS = 2.0
_SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)S?(_|$)|API_?KEY|ACCESS_KEY|PRIVATE_KEY", re.IGNORECASE
)


class BootError(HearmemanError):
    """This machine cannot run what the settings ask for; nothing was started."""


@dataclass(frozen=True)
class Process:
    """One process of the pod."""

    name: str
    """Its name in logs and in `hearmeman status`."""
    argv: tuple[str, ...]
    """The command."""
    env: Mapping[str, str]
    """Its environment without secrets."""
    secrets: tuple[str, ...]
    """Secret variables that it alone is given."""
    stop_stage: int
    """Processes of stage 1 are stopped first; those of the next when all of it have ended."""
    stop_seconds: float
    """Seconds between SIGTERM and SIGKILL."""
    once: bool = False
    """Whether it ends by itself."""
    after: str = ""
    """Process that must have ended with 0 before this one starts."""
    directory: str = "/"
    """Where it is started."""


@dataclass(frozen=True)
class BootPlan:
    """All that boot will do."""

    directories: tuple[str, ...]
    """Folders to create."""
    node_links: tuple[str, ...]
    """Custom nodes of the image to link."""
    processes: tuple[Process, ...]
    """In the order in which they are shown."""
    stop_seconds: float
    """What the whole stop may take."""
    withheld: tuple[str, ...]
    """Variables that look secret and that no process is given."""
    warnings: tuple[str, ...]
    """What a person should know."""


def withheld(environ: Mapping[str, str]) -> set[str]:
    """Name the variables that look secret, and those that repeat a secret's value."""
    names = {name for name in environ if name in SECRETS or _SECRET_NAME.search(name)}
    values = {environ[name] for name in names if len(environ[name]) >= 8}
    return names | {name for name, value in environ.items() if any(secret in value for secret in values)}


def check(settings: Settings, machine: Machine) -> None:
    """Refuse what cannot work here.

    Raises:
        BootError: names every port that is taken and every folder that cannot be used.
    """
    problems = []
    for listen in machine.listens:
        where = f"{listen.host}:{listen.port}"
        if listen.problem == "taken":
            problems.append(
                f"COMFYUI_PORT={listen.port}: another process listens on {where}: "
                "stop that process or set COMFYUI_PORT to a free port"
            )
        elif listen.problem:
            problems.append(
                f"COMFYUI_HOST={listen.host}: cannot listen on {where}: {listen.problem}: set another address"
            )
    if not machine.listens:
        problems.append(f"COMFYUI_HOST={settings.comfyui_host!r} names no address: set it to 0.0.0.0")
    told = set()
    for place in machine.places:
        full = place.free_bytes < MIN_FREE_BYTES
        if place.problem and place.problem not in told:
            problems.append(
                f"{place.path} cannot be written: {place.problem}: mount a writable volume or set {place.variable}"
            )
        elif not place.problem and full and place.free_bytes not in told:
            problems.append(
                f"{place.path} has {place.free_bytes / 1024**2:.0f} MiB free, {MIN_FREE_BYTES // 1024**2} MiB are needed: "
                f"use a larger disk, delete files, or set {place.variable} to a folder on another one"
            )
        told |= {place.problem, place.free_bytes}
    if problems:
        raise BootError("the pod cannot start, nothing was started:\n" + "\n".join(f"  {p}" for p in problems))


def make_plan(
    settings: Settings,
    machine: Machine,
    image: Image,
    tuning: Tuning,
    environ: Mapping[str, str],
    run_dir: str,
    python: str,
) -> BootPlan:
    """Plan the pod; `environ` is the merged environment, `python` the interpreter of this package.

    Raises:
        BootError: see `check`.
    """
    check(settings, machine)
    hidden = withheld(environ)
    public = {name: value for name, value in environ.items() if name not in hidden}
    cache = f"{settings.volume_dir}/.cache"
    base = {"XDG_CACHE_HOME": cache, "HF_HOME": f"{cache}/huggingface", "PYTHONUNBUFFERED": "1", **public}
    comfyui_share, sync_share = stop_shares(settings)
    us = (python, "-m", "hearmeman")
    processes = [
        Process(
            name="comfyui",
            argv=comfyui_argv(settings, image, tuning, run_dir),
            env=base,
            secrets=(),
            stop_stage=1,
            stop_seconds=comfyui_share,
            after="models" if settings.wait_for_models else "",
            directory=settings.comfyui_dir,
        ),
        Process(
            name="models",
            argv=(*us, "models", "fetch"),
            env=base,
            secrets=("HF_TOKEN",),
            stop_stage=1,
            stop_seconds=min(5.0, comfyui_share),
            once=True,
        ),
    ]
    if settings.enable_r2_sync:
        drain = max(0.0, min(settings.sync_drain_seconds, sync_share - 1))
        processes.append(
            Process(
                name="sync",
                argv=(*us, "sync"),
                env={**base, "SYNC_DRAIN_SECONDS": f"{drain:g}"},
                secrets=("R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"),
                stop_stage=2,
                stop_seconds=sync_share,
            )
        )
    for process in processes:
        if any("\n" in word for word in process.argv):
            raise BootError(
                f"the command of {process.name} holds a line break: remove it from the variables that name paths"
            )
    return BootPlan(
        directories=_directories(settings),
        node_links=_links(machine),
        processes=tuple(
            Process(**{**vars(p), "secrets": tuple(name for name in p.secrets if environ.get(name))}) for p in processes
        ),
        stop_seconds=settings.stop_seconds,
        withheld=tuple(sorted(hidden - {name for process in processes for name in process.secrets})),
        warnings=_warnings(settings, machine, tuning, sync_share),
    )


def comfyui_argv(settings: Settings, image: Image, tuning: Tuning, run_dir: str) -> tuple[str, ...]:
    """Build ComfyUI's command."""
    base = settings.comfyui_dir
    argv = [image.comfyui_python, image.comfyui_main]
    argv += ["--listen", settings.comfyui_host, "--port", str(settings.comfyui_port)]
    argv += ["--base-directory", base, "--models-directory", settings.models_path, "--user-directory", f"{base}/user"]
    # In the pod's own state folder, since several pods may mount one volume and ComfyUI locks this file.
    argv += ["--database-url", f"sqlite:///{settings.state_path}/comfyui.db"]
    argv += ["--extra-model-paths-config", f"{run_dir}/extra_model_paths.yaml"]
    if settings.output_path != f"{base}/output":
        argv += ["--output-directory", settings.output_path]
    return (*argv, "--disable-auto-launch", "--log-stdout", *tuning.arguments)


def stop_shares(settings: Settings) -> tuple[float, float]:
    """Share STOP_SECONDS out: seconds for ComfyUI and for the sync; a margin stays for supervisord's own loop."""
    usable = settings.stop_seconds - min(_MARGIN_SECONDS, settings.stop_seconds / 5)
    if not settings.enable_r2_sync:
        return usable, 0.0
    comfyui = max(usable - settings.sync_drain_seconds - 1, min(5.0, usable * 0.3))
    return comfyui, usable - comfyui


def _directories(settings: Settings) -> tuple[str, ...]:
    base = settings.comfyui_dir
    folders = [base, settings.models_path, settings.output_path]
    folders += [f"{base}/{name}" for name in ("input", "user", "custom_nodes", "temp")]
    return (*folders, f"{settings.volume_dir}/.cache", settings.state_path, f"{settings.state_path}/logs")


def _links(machine: Machine) -> tuple[str, ...]:
    # ComfyUI loads the baked copy too and it would win over the user's newer one.
    theirs = {name.casefold() for name in machine.volume_nodes}
    return tuple(path for path in machine.baked_nodes if PurePosixPath(path).name.casefold() not in theirs)


def _warnings(settings: Settings, machine: Machine, tuning: Tuning, sync_share: float) -> tuple[str, ...]:
    found = list(tuning.warnings)
    if not machine.volume_is_mount:
        found.append(f"no volume is mounted at {settings.volume_dir}: what is written there goes with the pod")
    if any(listen.host not in ("127.0.0.1", "::1", "localhost") for listen in machine.listens):
        found.append(f"ComfyUI asks for no password: whoever reaches port {settings.comfyui_port} can use it")
    if settings.enable_r2_sync and sync_share - 1 < settings.sync_drain_seconds:
        found.append(
            f"SYNC_DRAIN_SECONDS={settings.sync_drain_seconds:g} does not fit STOP_SECONDS={settings.stop_seconds:g}: "
            f"the sync gets {max(0.0, sync_share - 1):g} s"
        )
    return tuple(found)
