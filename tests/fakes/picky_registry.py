"""In front of a real registry: refuses manifests that hold some words, as registries without zstd or referrers do."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

_REFUSAL = b'{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid"}]}'
_HOP = {"transfer-encoding", "content-length", "connection"}


class PickyRegistry:
    """Passes every request on to the registry at `behind`, but for manifests with `words`; a `with` block ends it."""

    def __init__(self, behind: str, words: bytes) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                whole = b""
                while size := int(self.rfile.readline(), 16):
                    whole += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return whole

            def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, size: str) -> None:
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in _HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", size)
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                """Pass it on, or refuse it."""
                body = self._body()
                if self.command == "PUT" and "/manifests/" in self.path and words in body:
                    self._answer(400, [("Content-Type", "application/json")], _REFUSAL, str(len(_REFUSAL)))
                    return
                connection = http.client.HTTPConnection(behind, timeout=60)
                kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
                connection.request(self.command, self.path, body, kept)
                with connection.getresponse() as reply:
                    found = reply.read()
                    size = reply.headers["Content-Length"] if self.command == "HEAD" else str(len(found))
                    self._answer(reply.status, reply.getheaders(), found, size or "0")
                connection.close()

            do_PUT = do_POST = do_PATCH = do_HEAD = do_DELETE = do_GET  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        """HOST:PORT."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
