"""Boots a built image without a container engine: unpacks its layers and runs them under bubblewrap."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from hearmeman_build.build import Image
from hearmeman_build.host import ROOT, WORK
from support.ports import free_port
from support.waiting import PATIENCE, wait_for

# As text: the demo does without the libraries that the settings need. tests/boot/test_pod.py compares.
PORTS = [
    name.upper()
    for name in re.findall(
        r"^    (\w+_port): ", (ROOT / "python/hearmeman/settings/groups.py").read_text(), re.MULTILINE
    )
]
"""Every variable that names a port which something in the pod listens on."""

_held: dict[Path, IO[bytes]] = {}
"""Locks on the trees that this process uses, until it ends."""


def unpack(image: Image, below: Path = WORK / "rootfs") -> Path:
    """The image's root filesystem as a folder, made once for each digest, written beside and renamed.

    What no process uses any more is deleted; several may call this at once.
    """
    root = below / image.digest.partition(":")[2][:16]
    below.mkdir(parents=True, exist_ok=True)
    if root not in _held:
        lock = _held[root] = root.with_suffix(".lock").open("ab")
        fcntl.flock(lock, fcntl.LOCK_SH)
    with (below / "lock").open("ab") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not root.is_dir():
            _delete_unused(below)
            _unpack(image, root)
    return root


def _delete_unused(below: Path) -> None:
    for old in [path for path in below.iterdir() if path.is_dir()]:
        with old.with_suffix(".lock").open("ab") as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            subprocess.run(["chmod", "-R", "u+w", str(old)], check=True)
            shutil.rmtree(old)


def _unpack(image: Image, root: Path) -> None:
    beside = Path(tempfile.mkdtemp(prefix="unpack-", dir=root.parent))
    owners = ["--numeric-owner", "-p"] if os.geteuid() == 0 else ["--no-same-owner"]
    for layer in image.layers:
        blob = image.layout / "blobs/sha256" / layer["digest"].partition(":")[2]
        subprocess.run(["tar", "-C", str(beside), "--zstd", *owners, "-xf", str(blob.resolve())], check=True)
    beside.chmod(0o755)
    beside.rename(root)


def _bwrap(root: Path, mount: list[str]) -> list[str]:
    command = ["bwrap", "--ro-bind", str(root), "/", "--dev", "/dev", "--proc", "/proc"]
    # As a container engine has them: everyone may write into both, since nobody but boot is root.
    shared = [word for place in ("/tmp", "/dev/shm") for word in ("--perms", "1777", "--tmpfs", place)]
    command += ["--tmpfs", "/run", *shared, *mount, "/workspace"]
    command += ["--unshare-pid", "--die-with-parent", "--chdir", "/workspace"]
    if os.geteuid() != 0:
        command += ["--unshare-user", "--uid", "0", "--gid", "0"]
    return command


def _configuration(image: Image) -> dict[str, object]:
    blobs = image.layout / "blobs/sha256"
    manifest = json.loads((blobs / image.digest.partition(":")[2]).read_text())
    config: dict[str, object] = json.loads((blobs / manifest["config"]["digest"].partition(":")[2]).read_text())[
        "config"
    ]
    return config


def _ports() -> dict[str, str]:
    """A port of its own for everything that listens: pods share the host's network, and other pods run beside."""
    return {name: str(free_port()) for name in PORTS}


class Pod:
    """One running container of `image`, on the host's network, with `volume` as /workspace."""

    def __init__(self, image: Image, volume: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.image = image
        self.volume = volume
        self.mount = ["--bind", str(volume)]
        """bwrap's words that put something at /workspace."""
        self.root = unpack(image)
        self.lines: list[str] = []
        self.say = say
        config = _configuration(image)
        self.environment = dict(word.split("=", 1) for word in config["Env"])  # type: ignore[attr-defined]
        self.entrypoint: list[str] = config["Entrypoint"]  # type: ignore[assignment]
        self.process: subprocess.Popen[str] | None = None
        self.init = 0
        self.started = 0.0

    def start(self, variables: Mapping[str, str]) -> None:
        """Start the entrypoint with the image's environment and `variables`."""
        read, write = os.pipe()
        # The environment goes by the process, not by --setenv: secrets do not belong into argv.
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*_bwrap(self.root, self.mount), "--as-pid-1", "--info-fd", str(write), "--", *self.entrypoint],
            env={**self.environment, **_ports(), **variables},
            pass_fds=[write],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        os.close(write)
        with os.fdopen(read) as info:
            text = info.read()
        self.init = json.loads(text)["child-pid"] if text else 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self.process is None or self.process.stdout is None:
            return
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            self.say(self.lines[-1])

    def log(self) -> str:
        """Everything that the pod printed so far."""
        return "\n".join(self.lines)

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Wait until `condition`; on time-out or the pod's end, raise TimeoutError with the pod's output."""
        wait_for(condition, what, seconds, self._is_over, self.log)

    def wait_line(self, text: str) -> str:
        """Wait for a line that holds `text`; that line."""
        self.wait_for(lambda: any(text in line for line in list(self.lines)), f"a line with {text!r}")
        return next(line for line in self.lines if text in line)

    def _is_over(self) -> bool:
        """Whether it has ended and all that it printed is read."""
        return self.process is None or (self.process.poll() is not None and not self._reader.is_alive())

    def command(self, *arguments: str, variables: Mapping[str, str] | None = None) -> list[str]:
        """A command line that runs `arguments` in the image beside the pod, on the same volume."""
        settings = [word for key, value in (variables or {}).items() for word in ("--setenv", key, value)]
        path = ["--clearenv", "--setenv", "PATH", self.environment["PATH"], "--setenv", "LANG", "C.UTF-8"]
        return [*_bwrap(self.root, self.mount), *path, *settings, "--", *arguments]

    def inside(self, *arguments: str) -> list[str]:
        """A command line that runs `arguments` in the running pod, as its root and with an empty environment."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        enter = ["nsenter", f"--target={self.init}", "--mount", "--pid", *user, "--wd=/", "--"]
        return [*enter, "env", "-i", f"PATH={self.environment['PATH']}", *arguments]

    def stop(self) -> int:
        """SIGTERM to PID 1 and wait; the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None and self.init:
            os.kill(self.init, signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Wait until it has ended and all that it printed is read; the exit code."""
        assert self.process is not None
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def kill(self) -> None:
        """End the pod at once; PID 1 is gone only when everything in its namespace is."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.init or self.process.pid, signal.SIGKILL)
            self.process.wait()
