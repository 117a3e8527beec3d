"""Ports for what tests start: no two test processes are given the same one, and no process gets one twice."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

PORTS = range(20000, 32000)
"""Below the ports that the kernel gives to connections, which could take one between its choice and its use."""

_taken: set[int] = set()


def free_port() -> int:
    """A port that nothing listens on and that this process keeps for itself until it ends."""
    first = random.SystemRandom().randrange(len(PORTS))
    # 7,919 is prime and no divisor of their number: every port comes once, and neighbours do not come together.
    for number in range(len(PORTS)):
        port = PORTS[(first + number * 7919) % len(PORTS)]
        if port not in _taken and _claim(port) and _is_free(port):
            return port
    raise OSError("no port is free")


def listens(port: int) -> bool:
    """Whether something on this machine takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _claim(port: int) -> bool:
    """Lock byte `port` of a file that all test processes share; the kernel lets go of it when this process ends."""
    claims = _claims(os.getpid())
    with contextlib.suppress(BlockingIOError, PermissionError):  # What another process's lock is answered with.
        fcntl.lockf(claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        _taken.add(port)
        return True
    return False


@functools.cache
def _claims(process: int) -> IO[bytes]:
    """The file that all users share, opened once by `process`: closing it would let go of every lock."""
    path = Path(tempfile.gettempdir()) / "hearmeman-test-ports"
    # Made only where it is missing: in a sticky folder nobody may open another's file with O_CREAT.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
        path.chmod(0o666)
    return path.open("r+b")


def _is_free(port: int) -> bool:
    with socket.socket() as one, contextlib.suppress(OSError):
        one.bind(("", port))
        return True
    return False
