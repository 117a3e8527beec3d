"""An engine's process seen from the server: it starts, speaks one chunk at a time, and can be stopped or ended."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hearmeman_voice.engine import Request, Samples, Spec
from hearmeman_voice.line import Line
from hearmeman_voice.refusals import Broken, Failed, Refused

STOP_SECONDS = 10.0
"""Seconds an engine may take to stop before its process is killed; engines stop within one."""
_LOOK = 0.05
"""Seconds between checks whether the client has left."""
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1", "TQDM_DISABLE": "1"}
"""An engine downloads nothing and reports nothing."""


@dataclass
class About:
    """What the process has reported about itself."""

    weights: str | None = None
    vram: int = 0
    load_seconds: float = 0.0


@dataclass
class Process:
    """A child process that runs the engine."""

    spec: Spec
    about: About = field(default_factory=About)
    _number: int = 0

    def start(self) -> None:
        """Start it; it loads at once."""
        ours, theirs = socket.socketpair()
        with theirs:
            env = {**os.environ, **_OFFLINE, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            if self.spec.gpu:
                env["CUDA_VISIBLE_DEVICES"] = self.spec.gpu
            command = [
                sys.executable,
                # It gets this process's path and looks nowhere else: its working folder may be anyone's.
                "-P",
                "-m",
                "hearmeman_voice.child",
                str(theirs.fileno()),
                json.dumps(self.spec.as_json()),
            ]
            # Libraries print to the log, since the server's standard output may carry audio.
            self._child = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_fd(sys.stderr) else 2,
                pass_fds=[theirs.fileno()],
            )
        self._line = Line(ours)

    @property
    def pid(self) -> int:
        return self._child.pid

    def load(self, left: Callable[[], bool]) -> None:
        """Wait until it is loaded, or `left` says that nobody is waiting any more.

        Raises: Broken when it could not be loaded.
        """
        while not left():
            message = self._receive()
            if isinstance(message, dict):
                if message["kind"] == "loaded":
                    self.about.vram, self.about.load_seconds = message["vram"], message["seconds"]
                    return
                if message["kind"] == "unloadable":
                    raise Broken(f"the engine could not be loaded: {message['message']}")

    def speak(self, request: Request, left: Callable[[], bool]) -> Iterator[Samples]:
        """Speak one chunk in blocks; once `left` returns true, stop the engine and end.

        Raises: Refused, Failed; Broken when the process is gone.
        """
        self._number += 1
        self._send({"kind": "speak", "number": self._number, "request": request.as_json()})
        asked_to_stop = 0.0
        while True:
            if left() and not asked_to_stop:
                self._send({"kind": "stop", "number": self._number})
                asked_to_stop = time.monotonic()
            if asked_to_stop and time.monotonic() - asked_to_stop > STOP_SECONDS:
                self.end()
                raise Broken("the engine did not stop when asked to, and was killed")
            message = self._receive()
            if isinstance(message, dict):
                if self._is_over(message):
                    return
            elif message is not None and not asked_to_stop:
                yield message

    def _is_over(self, message: dict[str, Any]) -> bool:
        match message["kind"]:
            case "spoken":
                self.about.vram = message["vram"]
                return True
            case "refused":
                raise Refused(message["param"], message["message"], message["code"])
            case "failed":
                raise Failed(f"the engine failed: {message['message']}")
            case "broken":
                raise Broken(f"the engine failed and is being restarted: {message['message']}")
        return False

    def listen(self) -> None:
        """Read its unsolicited messages, without waiting. Raises: Broken when the process is gone."""
        while self._line.waits(0):
            self._receive()

    def end(self) -> None:
        """End it and wait until it is gone and its memory is free."""
        self._child.kill()
        self._child.wait()
        self._line.close()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._line.send(message)
        except OSError as problem:
            raise Broken(self._gone()) from problem

    def _receive(self) -> dict[str, Any] | Samples | None:
        try:
            if not self._line.waits(_LOOK):
                return None
            message = self._line.receive()
        except (EOFError, OSError) as problem:
            raise Broken(self._gone()) from problem
        if isinstance(message, dict) and message["kind"] == "weights":
            self.about.weights = message["sha256"]
        return message

    def _gone(self) -> str:
        status = self._child.wait()
        return f"the engine's process has ended with {f'signal {-status}' if status < 0 else f'status {status}'}"


def _has_fd(stream: Any) -> bool:
    try:
        stream.fileno()
    except (OSError, ValueError, AttributeError):
        return False
    return True
