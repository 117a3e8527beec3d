"""A Python package index on loopback, in the simple format: projects, their wheels with hash and size, and 404 for the rest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextlib.contextmanager
def served(wheels: Sequence[Path]) -> Iterator[str]:
    """Serve `wheels`; the index's address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").rpartition("/")[2]
            files = [wheel for wheel in wheels if wheel.name.partition("-")[0] == name]
            whole = [wheel for wheel in wheels if wheel.name == name]
            if files:
                found = [
                    {
                        "filename": wheel.name,
                        "url": f"/files/{wheel.name}",
                        "hashes": {"sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()},
                        "size": wheel.stat().st_size,
                    }
                    for wheel in files
                ]
                page = {"meta": {"api-version": "1.1"}, "name": name, "files": found}
                self._answer(200, json.dumps(page).encode(), "application/vnd.pypi.simple.v1+json")
            elif whole:
                self._answer(200, whole[0].read_bytes(), "application/octet-stream")
            else:
                self._answer(404, b"", "text/plain")

        def do_HEAD(self) -> None:
            self.do_GET()

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple"
    finally:
        server.shutdown()
        server.server_close()
