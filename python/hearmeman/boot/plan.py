"""Settings and facts to all that boot will do; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from hearmeman.boot import owners, voices
from hearmeman.boot.comfyui import comfyui_folders, database
from hearmeman.boot.environments import guarded, withheld
from hearmeman.boot.facts import Machine
from hearmeman.boot.process import Process
from hearmeman.boot.processes import Table
from hearmeman.boot.stop_shares import stop_shares
from hearmeman.door import ports as door_table
from hearmeman.errors import HearmemanError
from hearmeman.image import WORKER_DIR, Image
from hearmeman.settings import ALIASES, NAMES, Settings
from hearmeman.settings.declare import strangers
from hearmeman.tune.tuner import Tuning
from hearmeman.users import COMFYUI, ROOT

MIN_FREE_BYTES = 64 * 1024**2
FULL = 0.95


class BootError(HearmemanError):
    """This machine cannot run what the settings ask for; nothing was started."""


@dataclass(frozen=True)
class BootPlan:
    """All that boot will do."""

    folders: tuple[owners.Folder, ...]
    """Folders to make, and to whom they belong, each after the one that it lies in."""
    node_links: tuple[str, ...]
    """Custom nodes of the image to link."""
    model_configs: str
    """ComfyUI's own configurations of checkpoints, which the models folder lacks."""
    processes: tuple[Process, ...]
    """In the order in which they are shown."""
    stop_seconds: float
    """What the whole stop may take."""
    withheld: tuple[str, ...]
    """Variables that look secret and that no process is given."""
    warnings: tuple[str, ...]
    """What a person should know."""
    doors: tuple[door_table.Door, ...] = ()
    """The pod's open ports."""
    shell: Mapping[str, str] | None = None
    """The environment of interactive shells."""
    unset: tuple[str, ...] = ()
    """Variables that interactive shells are rid of."""
    failed: Mapping[str, str] | None = None
    """Part of the pod that will not work -> why."""
    authorized_keys: tuple[str, ...] = ()
    """SSH public keys that may log in."""
    separate: bool = False
    """Whether processes run as users of their own."""
    comfyui_url: str = ""
    """Where ComfyUI itself answers inside the pod."""
    node_folders: Mapping[str, str] = field(default_factory=dict)
    """NODE/FOLDER of the image's nodes -> the folder on the volume that it leads to."""
    models_dir: str = ""
    """Folder of the models that are part of the image."""
    models_path: str = ""
    """The models folder on the volume, where they are linked to."""
    theirs: Mapping[str, str] = field(default_factory=dict)
    """The environment of ComfyUI and of what a person runs as ComfyUI."""
    logs: str = ""
    """Folder of the processes' logs."""
    state: str = ""
    """The pod's state folder."""
    soon: tuple[tuple[str, int], ...] = ()
    """What ComfyUI writes to while it starts: (folder, how deep it is given to ComfyUI before that)."""
    manager_config: tuple[str, str] | None = None
    """ComfyUI-Manager's configuration, written where there is none: (file, content)."""
    moves: tuple[tuple[str, str], ...] = ()
    """What an older pod kept elsewhere: (old place, new place)."""


def check(settings: Settings, machine: Machine, tuning: Tuning) -> None:
    """Refuse what cannot work here.

    Raises:
        BootError: names every port that is taken and every folder that cannot be used.
    """
    problems = list(tuning.problems)
    for listen in machine.listens:
        where = f"{listen.host}:{listen.port}"
        if not listen.essential:
            continue
        if listen.problem == "taken":
            problems.append(
                f"{listen.variable}={listen.port}: another process listens on {where}: "
                f"stop that process or set {listen.variable} to a free port"
            )
        elif listen.problem:
            problems.append(
                f"COMFYUI_HOST={listen.host}: cannot listen on {where}: {listen.problem}: set another address"
            )
    if settings.storage_mode == "persistent" and not machine.volume_is_mount:
        problems.append(
            f"STORAGE_MODE=persistent, but nothing is mounted at {settings.volume_dir}: attach a volume there, "
            "or set STORAGE_MODE=auto to run without one"
        )
    told = set()
    for place in machine.places:
        full = place.free_bytes < MIN_FREE_BYTES
        if place.problem and place.problem not in told:
            problems.append(
                f"{place.path} cannot be written: {place.problem}: mount a writable volume or set {place.variable}"
            )
        elif not place.problem and full and place.free_bytes not in told:
            problems.append(
                f"{place.path} has {place.free_bytes / 1024**2:.0f} MiB free, {MIN_FREE_BYTES // 1024**2} MiB "
                "are needed: "
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
    failed: Mapping[str, str] | None = None,
) -> BootPlan:
    """Plan the pod; `environ` is the merged environment, `python` the interpreter of this package.

    Raises:
        BootError: see `check`.
    """
    check(settings, machine, tuning)
    hidden = withheld(environ)
    public = {name: value for name, value in environ.items() if name not in hidden}
    base = {"PYTHONUNBUFFERED": "1", **public, "COMFYUI_URL": settings.inner_url}
    theirs = _theirs(settings, base)
    left_out: tuple[str, ...] = ()
    if not machine.not_separate:
        base, left_out = guarded(base, (settings.volume_dir, settings.models_path, settings.output_path))
    not_started = {**(failed or {}), **_not_started(settings, machine, image)}
    processes = []
    for process in Table(settings, machine, image, tuning, base, theirs, run_dir, python).processes():
        if any("\n" in word for word in process.argv):
            raise BootError(f"the command of {process.name} contains a line break: remove it from COMFYUI_ARGS")
        secrets = {name: alias for name, alias in process.secrets.items() if environ.get(name)}
        user = ROOT if machine.not_separate else process.user
        processes.append(replace(process, secrets=secrets, user=user))
    given = {name for process in processes for name in process.secrets}
    return BootPlan(
        folders=_folders(settings, image, machine, run_dir),
        node_links=_links(machine),
        model_configs=str(PurePosixPath(image.comfyui_main).parent / "models/configs"),
        processes=tuple(processes),
        stop_seconds=settings.stop_seconds,
        withheld=tuple(sorted(hidden - given)),
        warnings=(*_warnings(settings, machine, tuning, environ, image), *_left_out(left_out)),
        doors=tuple(door for door in door_table.doors(settings) if _is_open(door, machine, not_started)),
        shell={**base, **voices.shell(settings, {process.name for process in processes})},
        unset=tuple(sorted({*hidden, *(alias for process in processes for alias in process.secrets.values())})),
        failed=not_started,
        authorized_keys=settings.authorized_keys,
        separate=not machine.not_separate,
        comfyui_url=settings.inner_url,
        node_folders=_node_folders(settings, image),
        models_dir=image.models_dir,
        models_path=settings.models_path,
        theirs=next(process.env for process in processes if process.name == "comfyui"),
        logs=f"{run_dir}/kept/logs" if machine.ownerless else f"{settings.state_path}/logs",
        state=settings.state_path,
        soon=((f"{settings.own_path}/overlays", 0), (f"{settings.comfyui_dir}/user", 1)),
        manager_config=_manager_config(settings, image),
        moves=(
            (f"{settings.hidden_path}/overlays", f"{settings.own_path}/overlays"),
            (f"{settings.state_path}/comfyui.db", database(settings)),
        ),
    )


def _manager_config(settings: Settings, image: Image) -> tuple[str, str] | None:
    """ComfyUI-Manager refuses to install anything where ComfyUI listens on more than loopback, as on a pod without a gate.

    `personal_cloud` lets it install what its own list names; addresses and packages that a visitor types stay refused.
    """
    if "--enable-manager" not in image.comfyui_arguments:
        return None
    values = {"network_mode": "personal_cloud", "security_level": "normal", "use_uv": "False", "file_logging": "True"}
    lines = ["[default]", *(f"{name} = {value}" for name, value in values.items())]
    return f"{settings.comfyui_dir}/user/__manager/config.ini", "\n".join(lines) + "\n"


def _theirs(settings: Settings, base: Mapping[str, str]) -> dict[str, str]:
    """ComfyUI's environment: its home and caches are on the volume, since the image may be read-only and goes with the pod."""
    cache = settings.cache_path
    places = {"XDG_CACHE_HOME": cache, "HF_HOME": f"{cache}/huggingface", "TRITON_CACHE_DIR": f"{cache}/triton"}
    places |= {"TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor"}
    user = {"HOME": f"{settings.own_path}/home", "USER": COMFYUI.name, "LOGNAME": COMFYUI.name}
    return {**places, **base, **user}


def _never_ends(settings: Settings) -> tuple[str, ...]:
    """Say why a pod that is to end itself will not."""
    if not (settings.idle_stop_minutes or settings.max_minutes):
        return ()
    if not settings.ends_by_itself:
        why = "RunPod did not give this pod a RUNPOD_API_KEY and RUNPOD_POD_ID"
        return (f"IDLE_STOP_MINUTES and MAX_MINUTES have no effect: {why}; stop the pod yourself",)
    if settings.runpod_volume_id and settings.idle_action == "stop":
        return (
            "RunPod may refuse to stop a pod with a network volume, and only terminate it: set IDLE_ACTION=terminate",
        )
    return ()


def _left_out(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        return ()
    return (
        f"{', '.join(names)}: ComfyUI could write where they point, so only ComfyUI gets "
        "them; for other processes name a place outside the volume",
    )


def _not_started(settings: Settings, machine: Machine, image: Image) -> dict[str, str]:
    found = {}
    for name in voices.NAMES:
        problem = voices.problem(name, settings, machine, image)
        if getattr(settings, f"enable_{name}") and problem:
            found[name] = problem
    if settings.jupyter_password is not None and not image.jupyter_python:
        found["jupyter"] = (
            f"JUPYTER_PASSWORD is set, but this image (tier {image.tier}) has no JupyterLab: unset it or use "
            "another image"
        )
    parts = {"STATUS_PORT": "status page", "SSH_PORT": "sshd", "JUPYTER_PORT": "jupyter"}
    parts |= {f"{name}{port}": name.lower() for name in ("XTTS", "CHATTERBOX") for port in ("_PORT", "_INNER_PORT")}
    if settings.enable_worker and not image.worker_python:
        found["worker"] = (
            f"this image (tier {image.tier}) does not have RunPod's SDK, so it cannot take jobs; use another image"
        )
    for listen in machine.listens:
        if listen.problem and not listen.essential:
            why = "another process listens there" if listen.problem == "taken" else listen.problem
            found[parts[listen.variable]] = f"{listen.variable}={listen.port}: {why}: set another port"
    return found


def _is_open(door: door_table.Door, machine: Machine, not_started: Mapping[str, str]) -> bool:
    if {"JupyterLab": "jupyter", "SSH": "sshd"}.get(door.service, door.service.lower()) in not_started:
        return False
    return not any(listen.problem for listen in machine.listens if listen.variable == door.variable)


def _folders(settings: Settings, image: Image, machine: Machine, run_dir: str) -> tuple[owners.Folder, ...]:
    base, own = settings.comfyui_dir, settings.own_path
    theirs = [*comfyui_folders(settings), settings.models_path, settings.output_path]
    theirs += [f"{base}/{name}" for name in ("input", "user", "custom_nodes", "temp")]
    theirs += [str(WORKER_DIR), settings.input_path] if settings.enable_worker else []
    if settings.enable_xtts or settings.enable_chatterbox or settings.sync_workspace:
        theirs.append(settings.voices_path)
    theirs += [own, f"{own}/home", f"{own}/overlays", str(PurePosixPath(database(settings)).parent)]
    theirs += _node_folders(settings, image).values()
    found = [owners.top(settings.volume_dir), owners.of_root(settings.hidden_path)]
    found += [owners.of_state(settings.state_path), owners.of_root(f"{settings.state_path}/logs")]
    found.append(owners.of_fetch(settings.fetch_path))
    found += [owners.of_comfyui(path) for path in dict.fromkeys(theirs) if path != settings.volume_dir]
    if settings.jupyter_password is not None:
        kept = f"{run_dir}/kept" if machine.ownerless else settings.hidden_path
        found.append(owners.of_jupyter(f"{kept}/jupyter"))
        found += [owners.of_jupyter(f"{kept}/jupyter/{name}") for name in ("settings", "workspaces")]
    return (*found, *((owners.of_root(f"{run_dir}/kept/logs"),) if machine.ownerless else ()))


def _node_folders(settings: Settings, image: Image) -> dict[str, str]:
    return {name: f"{settings.comfyui_dir}/node_data/{name}" for name in image.node_folders}


def _links(machine: Machine) -> tuple[str, ...]:
    # ComfyUI loads the baked copy too and it would win over the user's newer one.
    theirs = {name.casefold() for name in machine.volume_nodes}
    return tuple(path for path in machine.baked_nodes if PurePosixPath(path).name.casefold() not in theirs)


def _warnings(
    settings: Settings, machine: Machine, tuning: Tuning, environ: Mapping[str, str], image: Image
) -> tuple[str, ...]:
    found = list(tuning.warnings)
    sync_share = stop_shares(settings)[1]
    if not machine.volume_is_mount and settings.storage_mode != "ephemeral":
        found.append(
            f"no volume is mounted at {settings.volume_dir}: what is written there is lost with the pod; "
            "attach a volume, or set STORAGE_MODE=ephemeral if that is what you want"
        )
    if machine.volume_used >= FULL:
        found.append(
            f"the volume is {machine.volume_used:.0%} full: models or outputs may not fit; delete files or make "
            "it larger"
        )
    if settings.enable_r2_sync and sync_share - 1 < settings.sync_drain_seconds:
        found.append(
            f"SYNC_DRAIN_SECONDS={settings.sync_drain_seconds:g} does not fit into "
            f"STOP_SECONDS={settings.stop_seconds:g}: "
            f"the sync gets {max(0.0, sync_share - 1):g} s; raise STOP_SECONDS"
        )
    if machine.not_separate:
        found.append(
            f"processes cannot run as separate users ({machine.not_separate}): "
            "ComfyUI and its custom nodes could read the pod's secrets; run the container as root with the "
            "usual capabilities"
        )
    found += settings.key_problems
    if settings.comfyui_commit and settings.comfyui_commit != image.comfyui_rev:
        found.append(
            f"COMFYUI_COMMIT={settings.comfyui_commit} has no effect: this image has ComfyUI {image.comfyui_rev[:12]}; "
            "build an image with that commit, or unset it"
        )
    if settings.sage_attention and not machine.memory.gpus:
        found.append("SAGE_ATTENTION=true has no effect without a GPU: choose a pod with one, or unset it")
    found += voices.warnings(settings, machine, image)
    if machine.ownerless:
        found.append(
            f"{settings.volume_dir} does not store file owners ({machine.ownerless}): ComfyUI and its custom "
            "nodes could change "
            f"{settings.state_path} and everything else there; logs, JupyterLab's settings and the SSH host key "
            "are lost with the pod; "
            "use a volume that stores file owners"
        )
    if settings.update_nodes_on_start and not machine.volume_repositories:
        found.append(
            "UPDATE_NODES_ON_START=true, but no custom node on the volume is a git checkout: nothing to update; "
            "unset it"
        )
    found += _never_ends(settings)
    if settings.sync_workspace and not settings.enable_r2_sync:
        found.append(
            "SYNC_WORKSPACE=true has no effect without the sync, so the workspace is not saved: set ENABLE_R2_SYNC=true"
        )
    found += strangers(environ, {**NAMES, **ALIASES})
    return tuple(found)
