"""A conversation with `there.py` in a pod, over the system's own ssh: one login, whatever number of files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from hearmeman_pod import there
from hearmeman_pod.errors import PodError

_BLOCK = 1 << 20
_NOISE = 1 << 16
"""Bytes that a shell may print before the conversation begins."""
_START = (
    'p=/opt/env/runtime/bin/python; [ -x "$p" ] || p=python3; exec "$p" -I -c '
    "'import sys; i = sys.stdin.buffer; n = int(i.readline()); "
    'exec(compile(i.read(n), "hearmeman-files", "exec"))\''
)
"""What the pod's shell runs: Python that reads its program from here."""
_OPTIONS = ("ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=4", "StrictHostKeyChecking=accept-new")
RUNPODCTL_KEY = ".runpod/ssh/RunPod-Key-Go"
"""Where runpodctl keeps the key that it gave to the account."""


class LostError(PodError):
    """The connection broke; what was sent so far is kept, and the same order goes on with it."""


class FileError(PodError):
    """One file cannot be taken or given; the others can."""


def direct_words(
    pod: Mapping[str, Any], home: Path, identity: Path | None = None, config: Path | None = None
) -> list[str]:
    """The ssh command to a pod's own port, up to the command to run there.

    Raises:
        PodError: the pod has no such port.
    """
    way = pod["ssh"]["direct"]
    if way is None:
        why = f"it is {pod['status']}" if pod["status"] != "RUNNING" else "it has no public TCP port for 22"
        raise PodError(
            f"pod {pod['id']} cannot be reached by SSH directly: {why}. Files need that, since RunPod's SSH proxy does "
            "not transfer files: wait until it runs, or create one with 22/tcp among its ports, as "
            "`hearmeman-pod create` does"
        )
    return ssh_words(pod, way, home, identity, config)


def ssh_words(
    pod: Mapping[str, Any],
    way: Mapping[str, Any],
    home: Path,
    identity: Path | None = None,
    config: Path | None = None,
    options: Sequence[str] = _OPTIONS,
) -> list[str]:
    """The ssh command to a pod by one of its two ways, up to the command to run there.

    RunPod gives an address to one pod after another, so a pod's host key is remembered by the pod's id; its proxy is one
    machine for all, with a key of its own.
    """
    key = identity or (home / RUNPODCTL_KEY if (home / RUNPODCTL_KEY).exists() else None)
    words = ["ssh", *(("-F", str(config)) if config else ()), *(("-i", str(key)) if key else ())]
    alias = [f"HostKeyAlias=runpod-{pod['id']}"] if way == pod["ssh"]["direct"] else []
    for option in (*options, *alias):
        words += ["-o", option]
    return [*words, "-p", str(way["port"]), f"{way['username']}@{way['host']}"]


class Courier:
    """One connection to one place of a pod; runs while the context lasts."""

    def __init__(self, argv: Sequence[str], place: str, pod_id: str, program: str = _START) -> None:
        """`argv` is ssh with its options and the pod's address."""
        self._argv, self._place, self._pod = [*argv, program], place, pod_id
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
            )
        except FileNotFoundError as error:
            self._said.close()
            raise PodError("there is no ssh on this machine: install OpenSSH's client") from error
        try:
            source = Path(there.__file__).read_bytes()
            self._write(b"%d\n" % len(source) + source)
            self._greeting()
            opened = self._ask({"do": "open", "place": self._place})
            self.folder, self.is_file = str(opened["folder"]), bool(opened["is_file"])
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the conversation."""
        if self._process is not None:
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None
            self._said.close()

    def files(self) -> list[tuple[str, int, int]]:
        """(name, bytes, nanoseconds) of each file of the place; the name is empty where the place is a file."""
        return [(str(name), int(size), int(mtime)) for name, size, mtime in self._ask({"do": "list"})["files"]]

    def digest(self, name: str) -> str:
        """Sha256 of a file of the place, in hex."""
        return str(self._ask({"do": "hash", "name": name})["sha256"])

    def put(self, path: Path, name: str, sha256: str, replace: bool, progress: Callable[[int], None]) -> str:
        """Send a file; present, other (it is there and different) or sent.

        Raises:
            FileError: this file cannot be had there.
            LostError: the connection broke.
        """
        with path.open("rb") as file:
            known = path.stat()
            order = {"do": "put", "name": name, "size": known.st_size, "sha256": sha256, "replace": replace}
            answer = self._ask({**order, "mtime_ns": known.st_mtime_ns})
            if answer["state"] != "send":
                return str(answer["state"])
            file.seek(answer["at"])
            left = known.st_size - answer["at"]
            while left:
                # What is cut off meanwhile is filled up, and its hash is then another one.
                block = file.read(min(_BLOCK, left)) or bytes(min(_BLOCK, left))
                self._write(block)
                left -= len(block)
                progress(known.st_size - left)
        return str(self._answer()["state"])

    def get(self, name: str, size: int, mtime_ns: int, part: Path, progress: Callable[[int], None]) -> str:
        """Bring a file into `part`, going on with what that holds; sent, or changed if it was written meanwhile.

        Raises:
            FileError: this file cannot be read, or came damaged.
            LostError: the connection broke.
        """
        with part.open("a+b") as file:
            at = min(file.tell(), size)
            answer = self._ask({"do": "get", "name": name, "size": size, "mtime_ns": mtime_ns, "at": at})
            file.truncate(answer["at"])
            left = answer["size"] - answer["at"]
            while left:
                block = self._read(min(_BLOCK, left))
                file.write(block)
                left -= len(block)
                progress(answer["size"] - left)
            end = self._answer()
            file.flush()
            file.seek(0)
            came = hashlib.file_digest(file, "sha256").hexdigest()
        if end["state"] == "sent" and came != end["sha256"]:
            part.unlink()
            raise FileError(f"{name} arrived damaged and was not kept: fetch it again")
        return str(end["state"])

    def _greeting(self) -> None:
        noise = 0
        while noise < _NOISE:
            line = self._out.readline(_NOISE)
            if line == there.GREETING:
                return
            if not line:
                raise self._lost()
            noise += len(line)
        raise PodError(f"pod {self._pod}: what answers over SSH is not a shell that runs commands")

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        self._write(json.dumps(order).encode() + b"\n")
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._out.readline()
        if not line.endswith(b"\n"):
            raise self._lost()
        found: dict[str, Any] = json.loads(line)
        if found["state"] == "refused":
            raise FileError(found["why"])
        return found

    def _read(self, most: int) -> bytes:
        block = self._out.read1(most)  # type: ignore[attr-defined]
        if not block:
            raise self._lost()
        return bytes(block)

    def _write(self, data: bytes) -> None:
        if self._process is None or self._process.stdin is None:
            raise self._lost()
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError as error:
            raise self._lost() from error

    @property
    def _out(self) -> IO[bytes]:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout

    def _lost(self) -> PodError:
        """Why the conversation ended, after what ssh says."""
        code = None
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.stdin and self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(10)
        self._said.seek(0)
        return _why(
            self._said.read()[-4000:].decode(errors="replace").strip(), code, self._pod, shlex.join(self._argv[:-1])
        )


def _why(said: str, code: int | None, pod_id: str, command: str) -> PodError:
    last = said.splitlines()[-1] if said else f"ssh ended with {code}"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said or "Host key verification failed" in said:
        return PodError(
            f"pod {pod_id} shows another host key than before: a pod without a volume makes a new one when it "
            "starts again; "
            f"otherwise somebody stands between. If it was started again: ssh-keygen -R runpod-{pod_id}\n  {last}"
        )
    if "Permission denied" in said:
        return PodError(
            f"pod {pod_id} does not take this machine's SSH key. Add its public part in RunPod's console, Settings, "
            f"SSH public keys, before the pod is created; --identity FILE names another key\n  {last}"
        )
    if code is None or code == 255 or code < 0:  # 255 is ssh's own; below 0 a signal ended it.
        return LostError(f"the connection to pod {pod_id} broke or was not made: {last}. By hand: {command}")
    return PodError(f"pod {pod_id}: the other side ended ({code}): {last}")
