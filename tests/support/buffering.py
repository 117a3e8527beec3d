"""A proxy that hands on answers only in blocks, as Cloudflare's and company proxies may: a stream of small events stalls in it."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = 8192
"""Bytes that are gathered before any is sent."""
_HOP = frozenset({"connection", "transfer-encoding", "keep-alive"})


@contextlib.contextmanager
def buffering(port: int, block: int = BLOCK) -> Iterator[tuple[str, list[str]]]:
    """Stand before `port` of this machine: the proxy's own address, and the paths that were asked for so far."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            asked.append(self.path)
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            try:
                upstream.request(
                    "GET", self.path, headers={k: v for k, v in self.headers.items() if k.lower() not in _HOP}
                )
                answer = upstream.getresponse()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in _HOP:
                        self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                while piece := answer.read(block):  # Waits until a block is full, or the answer ends.
                    self.wfile.write(piece)
            except (OSError, http.client.HTTPException):
                pass
            finally:
                self.close_connection = True
                upstream.close()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", asked
    finally:
        server.shutdown()
        server.server_close()
