"""The process table: what runs in the pod, as whom, with which secrets, and in which order it is stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from hearmeman.boot import voices
from hearmeman.boot.comfyui import comfyui_argv, comfyui_folders
from hearmeman.boot.facts import Machine
from hearmeman.boot.process import Process
from hearmeman.boot.stop_shares import last_share, stop_shares, worker_share
from hearmeman.image import Image
from hearmeman.settings import Settings
from hearmeman.tune.tuner import Tuning
from hearmeman.users import COMFYUI, DOOR, FETCH, IDLE, JUPYTER, SYNC, WORKER, WORKSPACE, User

_BUCKET_KEYS = ("R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")
_WORKER_KEYS = (
    "RUNPOD_AI_API_KEY",
    # They may repeat the key.
    *(f"RUNPOD_WEBHOOK_{name}" for name in ("GET_JOB", "POST_OUTPUT", "POST_STREAM", "PING")),
    *("BUCKET_ENDPOINT_URL", "BUCKET_NAME", "BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY"),
    "COMFY_ORG_API_KEY",
)
_RESTORE_SECONDS = 60.0
"""How long ComfyUI waits for its settings from a bucket that does not answer."""
_DAY = 86400.0
_FAILED_NODES = r"Cannot import .+ module for custom nodes|\(IMPORT FAILED\)"
_COMFYUI_DIES_FIRST = 500
"""So that what uploads its outputs outlives it when memory runs out."""


@dataclass(frozen=True)
class Table:
    """What the process table is made from."""

    settings: Settings
    """The pod's settings."""
    machine: Machine
    """Facts about this machine."""
    image: Image
    """Facts about the image."""
    tuning: Tuning
    """ComfyUI's arguments."""
    base: Mapping[str, str]
    """The environment of processes that are not ComfyUI's."""
    theirs: Mapping[str, str]
    """The environment of ComfyUI and what shares its user."""
    run_dir: str
    """Folder for what lasts until the pod stops."""
    python: str
    """The interpreter of this package."""

    def processes(self) -> Iterator[Process]:
        """Make every process of the pod."""
        yield self._comfyui()
        if self._has_owners:
            yield self._owners()
        yield self._models()
        if self.machine.memory.gpus:
            yield self._check()
        if self.settings.enable_r2_sync:
            yield self._sync()
            if self.settings.sync_workspace:
                yield from self._workspace()
        if self.settings.update_nodes_on_start and self.machine.volume_repositories:
            yield self._nodes()
        if self.settings.enable_worker and self.image.worker_python:
            yield self._worker()
        yield self._door()
        if self.settings.ends_by_itself:
            yield self._idle()
        if self.settings.gated:
            yield self._gate()
        if self.settings.authorized_keys and self._is_free("SSH_PORT"):
            yield self._sshd()
        wanted = self.settings.jupyter_password is not None and self.image.jupyter_python
        if wanted and self._is_free("JUPYTER_PORT"):
            yield self._jupyter()
        for name in ("xtts", "chatterbox"):
            port = f"{name.upper()}_{'INNER_' if self.settings.gated else ''}PORT"
            command = voices.command(name, self.settings, self.machine, self.image)
            if getattr(self.settings, f"enable_{name}") and command and self._is_free(port):
                yield self._voice(name, command)

    def _is_free(self, variable: str) -> bool:
        return not any(listen.problem for listen in self.machine.listens if listen.variable == variable)

    def _us(self, *words: str) -> tuple[str, ...]:
        # -P: the folder that it is started in is no place to import from.
        return (self.python, "-P", "-m", "hearmeman", *words)

    @property
    def _has_owners(self) -> bool:
        return not self.machine.not_separate and not self.machine.ownerless

    def _over(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """ComfyUI's command, with the Python packages on the volume where the image says what they were built for."""
        if not self.image.environment_key:
            return argv
        return (*self._us("overlay", "exec"), "--", *argv)

    def _comfyui(self) -> Process:
        settings = self.settings
        # Nodes that call `python` or `pip` by name must find ComfyUI's own.
        path = f"{PurePosixPath(self.image.comfyui_python).parent}:{self.theirs.get('PATH', '')}"
        return Process(
            name="comfyui",
            argv=self._over(comfyui_argv(settings, self.image, self.tuning, self.run_dir)),
            env={**self.theirs, "PATH": path.rstrip(":")},
            secrets={},
            stop_stage=1,
            stop_seconds=stop_shares(settings)[0],
            after=self._before_comfyui(),
            needs=("models",) if settings.wait_for_models else (),
            directory=settings.comfyui_dir,
            user=COMFYUI,
            notes=_FAILED_NODES,
            oom_score=_COMFYUI_DIES_FIRST,
        )

    def _before_comfyui(self) -> tuple[str, ...]:
        nodes = self.settings.update_nodes_on_start and self.machine.volume_repositories
        workspace = self.settings.enable_r2_sync and self.settings.sync_workspace
        return (*(("workspace", "added") if workspace else ()), *(("nodes",) if nodes else ()))

    def _owners(self) -> Process:
        # First what ComfyUI needs first.
        folders = (f"{self.settings.comfyui_dir}/user", *reversed(comfyui_folders(self.settings)))
        return Process(
            name="owners",
            argv=self._us("owners", "--run-dir", self.run_dir, *folders),
            env=self.base,
            secrets={},
            stop_stage=1,
            stop_seconds=min(1.0, stop_shares(self.settings)[0]),
            once=True,
        )

    def _models(self) -> Process:
        words = ("owners", "--run-dir", self.run_dir, "--only-folders", self.settings.models_path)
        secrets = ("HF_TOKEN", "CIVITAI_API_KEY", *(_BUCKET_KEYS if self.settings.model_cache else ()))
        return Process(
            name="models",
            argv=self._us("models", "fetch"),
            env=self.base,
            secrets={name: name for name in secrets},
            stop_stage=1,
            stop_seconds=min(5.0, stop_shares(self.settings)[0]),
            once=True,
            user=FETCH,
            # It may write where ComfyUI's group may: folders of an older pod are given to that first.
            first=self._us(*words, "--then") if self._has_owners else (),
        )

    def _worker(self) -> Process:
        settings = self.settings
        argv = (self.image.worker_python, "-P", "-m", "hearmeman.worker", "--python", self.python)
        defaults = {"RUNPOD_LOG_LEVEL": "INFO", "RUNPOD_MIN_CUDA_VERSION": self.image.cuda_floor}
        return Process(
            name="worker",
            argv=(*argv, "--report", f"{settings.state_path}/worker.json"),
            # The SDK and boto3 read a configuration from the home; root's is not its own.
            env={**defaults, **self.base, "HOME": "/nonexistent"},
            secrets={name: name for name in (*_WORKER_KEYS, *_BUCKET_KEYS)},
            # Before ComfyUI, which the job that runs still needs.
            stop_stage=0,
            stop_seconds=worker_share(settings),
            after=("models",),
            user=WORKER,
        )

    def _check(self) -> Process:
        # As the fetch: it writes in the models folder, to learn how fast that is, and a report in the state folder.
        return Process(
            name="check",
            argv=self._us("check", "--report", f"{self.settings.state_path}/machine.json"),
            env=self.base,
            secrets={},
            stop_stage=1,
            stop_seconds=min(1.0, stop_shares(self.settings)[0]),
            once=True,
            user=FETCH,
        )

    def _sync(self) -> Process:
        share = stop_shares(self.settings)[1]
        drain = max(0.0, min(self.settings.sync_drain_seconds, share - 1))
        return Process(
            name="sync",
            argv=self._us("sync"),
            env={**self.base, "SYNC_DRAIN_SECONDS": f"{drain:g}"},
            secrets={name: name for name in _BUCKET_KEYS},
            stop_stage=2,
            stop_seconds=share,
            user=SYNC,
        )

    def _workspace(self) -> Iterator[Process]:
        """What comes back from the bucket: settings and workflows, added nodes and packages; inputs beside ComfyUI."""
        restore = ("workspace", "restore", "--at-start")
        yield self._restoring("workspace", (*restore, f"{_RESTORE_SECONDS:g}", "--only", "user"), WORKSPACE)
        # What git and pip run is foreign code, and gets no key.
        yield self._restoring("added", ("nodes", "install"), COMFYUI, after=("workspace",))
        yield self._restoring("inputs", (*restore, f"{_DAY:g}"), WORKSPACE, after=("workspace",))

    def _restoring(self, name: str, words: tuple[str, ...], user: User, after: tuple[str, ...] = ()) -> Process:
        return Process(
            name=name,
            argv=self._us(*words),
            env=self.theirs if user is COMFYUI else self.base,
            secrets={} if user is COMFYUI else {name: name for name in _BUCKET_KEYS},
            stop_stage=1,
            stop_seconds=min(1.0, stop_shares(self.settings)[0]),
            once=True,
            after=after,
            user=user,
        )

    def _nodes(self) -> Process:
        return Process(
            name="nodes",
            argv=self._us("nodes", "update"),
            env=self.theirs,
            secrets={},
            stop_stage=1,
            stop_seconds=min(1.0, stop_shares(self.settings)[0]),
            once=True,
            user=COMFYUI,
        )

    def _door(self) -> Process:
        # Loopback only: what it is asked for by the gate and by health checks.
        return Process(
            name="door",
            argv=self._us("door", "--run-dir", self.run_dir),
            env=self.base,
            secrets={name: name for name in ("ACCESS_TOKEN", "NOTIFY_URL")},
            stop_stage=3,
            stop_seconds=last_share(self.settings),
            user=DOOR,
        )

    def _idle(self) -> Process:
        # JupyterLab tells of its sessions only to who knows its token.
        jupyter = ("JUPYTER_PASSWORD",) if self.image.jupyter_python else ()
        return Process(
            name="idle",
            argv=self._us("idle", "--run-dir", self.run_dir),
            env=self.base,
            secrets={name: name for name in ("RUNPOD_API_KEY", *jupyter)},
            stop_stage=3,
            stop_seconds=last_share(self.settings),
            user=IDLE,
        )

    def _gate(self) -> Process:
        return Process(
            name="gate",
            argv=("nginx", "-e", "stderr", "-c", f"{self.run_dir}/gate/nginx.conf"),
            env={"PATH": self.base.get("PATH", "")},
            secrets={},
            stop_stage=3,
            stop_seconds=last_share(self.settings),
            user=DOOR,
        )

    def _sshd(self) -> Process:
        words = ("sshd", "--run-dir", self.run_dir, "--keys-dir", f"{self._kept(self.settings.state_path)}/ssh")
        return Process(
            name="sshd",
            argv=self._us(*words, "--port", str(self.settings.ssh_port)),
            env=self.base,
            secrets={},
            stop_stage=3,
            stop_seconds=last_share(self.settings),
        )

    def _kept(self, folder: str) -> str:
        """Give `folder`, or one that goes with the pod where ComfyUI could write into it."""
        return f"{self.run_dir}/kept" if self.machine.ownerless else folder

    def _jupyter(self) -> Process:
        settings = self.settings
        argv = [self.image.jupyter_python, "-P", "-m", "jupyterlab", "--allow-root", "--no-browser"]
        argv += [f"--ServerApp.ip={settings.jupyter_host}", f"--ServerApp.port={settings.jupyter_port}"]
        argv += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={settings.volume_dir}"]
        shell = [*self._us("as-comfyui", "--"), "/bin/bash"]
        argv += [f"--ServerApp.terminado_settings=shell_command={shell!r}"]
        argv += ["--FileContentsManager.delete_to_trash=False"]
        # Notebooks run in ComfyUI's environment; this one's own packages are pinned and stay as they are.
        argv += ["--MultiKernelManager.default_kernel_name=comfyui", "--KernelSpecManager.ensure_native_kernel=False"]
        argv += ["--KernelSpecManager.allowed_kernelspecs=comfyui", "--LabApp.extension_manager=readonly"]
        if settings.runpod_pod_id != "local":
            # Exactly the address at which RunPod's proxy shows it; no wildcard.
            origin = f"https://{settings.runpod_pod_id}-{settings.jupyter_port}.proxy.runpod.net"
            argv.append(f"--ServerApp.allow_origin={origin}")
        # Out of ComfyUI's reach: runtime files hold the token, and the rest is code that JupyterLab would run.
        own, kept = f"{self.run_dir}/jupyter", f"{self._kept(settings.hidden_path)}/jupyter"
        places = {
            "HOME": own,
            "JUPYTER_PATH": f"{self.run_dir}/share/jupyter",
            "JUPYTER_RUNTIME_DIR": f"{own}/runtime",
            "JUPYTER_CONFIG_DIR": f"{own}/config",
            "JUPYTER_DATA_DIR": f"{own}/data",
            "IPYTHONDIR": f"{own}/ipython",
            "JUPYTERLAB_SETTINGS_DIR": f"{kept}/settings",
            "JUPYTERLAB_WORKSPACES_DIR": f"{kept}/workspaces",
        }
        return Process(
            name="jupyter",
            argv=tuple(argv),
            env={**self.base, **places},
            secrets={"JUPYTER_PASSWORD": "JUPYTER_TOKEN"},
            stop_stage=1,
            stop_seconds=min(5.0, stop_shares(settings)[0]),
            user=JUPYTER,
        )

    def _voice(self, name: str, command: tuple[str, ...]) -> Process:
        return Process(
            name=name,
            argv=voices.argv(command, name, self.settings),
            env=voices.environment(self.theirs, self.settings),
            secrets={},
            stop_stage=1,
            stop_seconds=min(5.0, stop_shares(self.settings)[0]),
            directory=self.settings.volume_dir,
            user=COMFYUI,
            oom_score=_COMFYUI_DIES_FIRST,
        )
