"""A Hub and its storage for benches: serves slices of one file by sendfile, each connection limited and delayed at will."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

COMMIT = "b" * 40
PIECE = 256 * 1024
SLOW = 128 * 1024
"""Bytes per second of a connection that crawls."""


@dataclass(frozen=True)
class Slice:
    """One file."""

    offset: int
    size: int
    sha256: str


class Server:
    """Listens on two ports: the Hub's, and the storage's, which is where the Hub sends everyone."""

    def __init__(self, blob: Path, files: dict[str, Slice], rate: float, latency: float, slow: int = 0) -> None:
        self.blob = os.open(blob, os.O_RDONLY)
        self.files, self.rate, self.latency, self.slow = files, rate, latency, slow
        self.lock = threading.Lock()
        self.answers, self.answered = 0, 0.0
        self.sockets = [socket.create_server(("127.0.0.1", 0), backlog=256) for _ in range(2)]

    @property
    def ports(self) -> list[int]:
        """The Hub's and the storage's."""
        return [int(one.getsockname()[1]) for one in self.sockets]

    def serve(self) -> None:
        """Serve for ever."""
        for listener in self.sockets:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        threading.Event().wait()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        rest = b""
        try:
            while True:
                while b"\r\n\r\n" not in rest:
                    data = connection.recv(65536)
                    if not data:
                        return
                    rest += data
                head, rest = rest.split(b"\r\n\r\n", 1)
                time.sleep(self.latency)
                self._answer(connection, head.decode())
        except OSError:
            return
        finally:
            connection.close()

    def _answer(self, connection: socket.socket, head: str) -> None:
        method, target, _ = head.split("\r\n", 1)[0].split(" ", 2)
        path = target.partition("?")[0]
        name = path.rpartition("/")[2]
        if path.startswith("/data/") and name in self.files:
            self._send(connection, method, self.files[name], head)
        elif "/resolve/" in path and name in self.files:
            one = self.files[name]
            lines = [f"X-Repo-Commit: {COMMIT}", f'X-Linked-ETag: "{one.sha256}"', f"X-Linked-Size: {one.size}"]
            lines += [f"Location: http://127.0.0.1:{self.ports[1]}/data/{name}", f'ETag: "{one.sha256[:40]}"']
            self._head(connection, "302 Found", [*lines, "Content-Length: 0"])
        elif "/tree/" in path:
            entries = [
                {
                    "type": "file",
                    "path": name,
                    "size": one.size,
                    "oid": one.sha256[:40],
                    "lfs": {"oid": one.sha256, "size": one.size, "pointerSize": 134},
                }
                for name, one in self.files.items()
            ]
            self._json(connection, entries)
        elif path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in self.files]
            self._json(connection, {"_id": "0", "id": "a/b", "modelId": "a/b", "sha": COMMIT, "siblings": siblings})
        else:
            self._head(connection, "404 Not Found", ["Content-Length: 0"])

    def _json(self, connection: socket.socket, content: object) -> None:
        body = json.dumps(content).encode()
        self._head(connection, "200 OK", ["Content-Type: application/json", f"Content-Length: {len(body)}"])
        connection.sendall(body)

    def _head(self, connection: socket.socket, status: str, lines: list[str]) -> None:
        connection.sendall("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode())

    def _send(self, connection: socket.socket, method: str, one: Slice, head: str) -> None:
        asked = re.search(r"^range: bytes=(\d+)-(\d*)", head, re.IGNORECASE | re.MULTILINE)
        start = int(asked[1]) if asked else 0
        end = min(int(asked[2]) + 1, one.size) if asked and asked[2] else one.size
        lines = [f"Content-Length: {end - start}", "Accept-Ranges: bytes", f'ETag: "{one.sha256}"']
        if asked:
            lines.append(f"Content-Range: bytes {start}-{end - 1}/{one.size}")
        self._head(connection, "206 Partial Content" if asked else "200 OK", lines)
        if method == "HEAD":
            return
        began, sent = time.monotonic(), 0
        rate, piece = (SLOW, SLOW // 4) if self._is_slow() else (self.rate, PIECE if self.rate else end - start)
        while sent < end - start:
            count = min(piece, end - start - sent)
            sent += os.sendfile(connection.fileno(), self.blob, one.offset + start + sent, count)
            if rate and (ahead := sent / rate - (time.monotonic() - began)) > 0:
                time.sleep(ahead)

    def _is_slow(self) -> bool:
        """Whether this is the answer of a run that crawls; a run begins when nothing was asked for for a second."""
        with self.lock:
            now = time.monotonic()
            self.answers = 1 if now - self.answered > 1 else self.answers + 1
            self.answered = now
            return self.answers == self.slow


def main() -> None:
    """Serve what a JSON file describes; the ports are told as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("blob", type=Path)
    parser.add_argument("files", type=Path, help="JSON: name -> [offset, size, sha256]")
    parser.add_argument("--rate", type=float, default=0, help="bytes per second and connection")
    parser.add_argument("--latency", type=float, default=0, help="seconds before each answer")
    parser.add_argument("--slow", type=int, default=0, help="which answer of a run crawls; 0: none")
    args = parser.parse_args()
    files = {name: Slice(*values) for name, values in json.loads(args.files.read_text()).items()}
    server = Server(args.blob, files, args.rate, args.latency, args.slow)
    print(json.dumps(server.ports), flush=True)
    server.serve()


if __name__ == "__main__":
    main()
