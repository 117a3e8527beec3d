"""The connection between a server and its engine's process: JSON messages both ways, and raw sound.

A frame is a kind, a length and that many bytes. Sound is received into the array that is handed on, where
multiprocessing's Connection copies it four times: that was half of the server's processor time.
"""

import json
import select
import socket
import struct
import threading
from typing import Any

import numpy as np

from hearmeman_voice.engine import Samples

_HEAD = struct.Struct("<cI")
_SOUND, _WORDS = b"S", b"W"


class Line:
    """One end of it. Any thread may send; only one receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = threading.Lock()
        self._incoming = select.poll()
        self._incoming.register(end, select.POLLIN)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message. Raises: OSError when the other end is gone."""
        self._send(_WORDS, json.dumps(message).encode())

    def send_sound(self, block: Samples) -> None:
        """Send samples of shape (samples,). Raises: OSError when the other end is gone."""
        self._send(_SOUND, np.ascontiguousarray(block, "<f4").data.cast("B"))

    def waits(self, seconds: float) -> bool:
        """Whether something arrives within `seconds`, including the other end's close."""
        return bool(self._incoming.poll(seconds * 1000))

    def receive(self) -> dict[str, Any] | Samples:
        """Wait for a message or samples. Raises: EOFError or OSError when the other end is gone."""
        head = bytearray(_HEAD.size)
        self._fill(memoryview(head))
        kind, length = _HEAD.unpack(head)
        if kind == _SOUND:
            block = np.empty(length // 4, "<f4")
            if length:
                self._fill(block.data.cast("B"))
            return block
        words = bytearray(length)
        self._fill(memoryview(words))
        message: dict[str, Any] = json.loads(words)
        return message

    def close(self) -> None:
        """Close this end; the other end notices."""
        self._socket.close()

    def _send(self, kind: bytes, data: bytes | memoryview) -> None:
        with self._sending:
            self._socket.sendall(_HEAD.pack(kind, len(data)))
            self._socket.sendall(data)

    def _fill(self, room: memoryview) -> None:
        while room:
            came = self._socket.recv_into(room)
            if not came:
                raise EOFError
            room = room[came:]
