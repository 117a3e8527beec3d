"""How the server answers: JSON, RFC 9457 problems, raw bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from fakes.runpod.account import Account


class Answers(BaseHTTPRequestHandler):
    """One connection to the account `fake`."""

    fake: Account
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        raise NotImplementedError

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""

    def _problem(
        self,
        status: int,
        title: str,
        detail: str,
        errors: list[str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        body = {"title": title, "status": status, "detail": detail} | ({"errors": errors} if errors else {})
        self._send(status, body, headers, "application/problem+json")

    def _send(
        self, status: int, body: Any, headers: Mapping[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        self._raw(status, json.dumps(body).encode(), kind, headers)

    def _raw(self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
