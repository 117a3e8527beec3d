"""What the fakes of file hosts share: files by range, a note of every request, and faults on demand."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

from support.waiting import PATIENCE

CHUNK = 64 * 1024


@dataclass(frozen=True)
class Stored:
    """One file of a host."""

    data: bytes
    lfs: bool = True
    """On the Hub: whether it lies in large file storage, on the second host."""

    @functools.cached_property
    def sha256(self) -> str:
        """Its hash, which the Hub states for large files."""
        return hashlib.sha256(self.data).hexdigest()

    @functools.cached_property
    def blob_id(self) -> str:
        """Git's name of it, which the Hub states for small files."""
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @functools.cached_property
    def etag(self) -> str:
        """What storage calls it."""
        return f'"{hashlib.md5(self.data).hexdigest()}"'


@dataclass
class Fault:
    """Something that goes wrong with a file's body or answer.

    'whole' is a body without ranges that ends at `at`; 'short' an answer with all of another, shorter file of `at` bytes;
    'gzip' a compressed body; 'crawl' sends `rate` bytes per second from `at` on; 'hold' waits for `release` before the
    answer's first byte.
    """

    kind: Literal[
        "stall",
        "truncate",
        "drop",
        "html",
        "json",
        "gzip",
        "short",
        "status",
        "lie",
        "no_ranges",
        "chunked",
        "change",
        "flip",
        "whole",
        "crawl",
        "hold",
    ]
    times: int = 1 << 30
    """How many answers it befalls."""
    after: int = 0
    """How many answers are right before the first that it befalls."""
    at: int = 0
    """Position in the file before which it does not happen."""
    rate: float = 4096
    """For 'crawl'."""
    release: threading.Event = field(default_factory=threading.Event)
    """For 'hold'."""
    held: threading.Event = field(default_factory=threading.Event)
    """For 'hold': set while an answer waits."""
    status: int = 503
    """For 'status'."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """For 'status'."""
    other: bytes = b""
    """For 'change': what the file is from then on."""


@dataclass
class Request:
    """One request that was seen. It is noted before its answer begins: who has the answer finds it here."""

    method: str
    host: str
    """Which of the host's servers saw it."""
    path: str
    headers: Mapping[str, str]
    status: int
    sent: int = field(default=0, compare=False)
    """Bytes of the body that were handed to the connection."""
    over: bool = field(default=False, compare=False)
    """Whether all that there will be of the answer is sent."""


class Host:
    """One or more servers on loopback that belong together."""

    def __init__(self, handlers: Sequence[tuple[type[Handler], int]]) -> None:
        self.requests: list[Request] = []
        self.faults: dict[str, Fault] = {}
        """Key of a file (its path or hash) -> what goes wrong with it."""
        self.rate = 0.0
        """Bytes per second and connection; 0 means no limit."""
        self.latency = 0.0
        """Seconds before each answer."""
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._servers = [_Server(("127.0.0.1", port), handler) for handler, port in handlers]
        for server in self._servers:
            server.host = self
        self._threads = [threading.Thread(target=s.serve_forever, args=(0.05,), daemon=True) for s in self._servers]

    def address(self, number: int = 0) -> str:
        """The address of one of the servers."""
        return f"http://127.0.0.1:{self.port(number)}"

    def port(self, number: int = 0) -> int:
        """The port of one of the servers."""
        return int(self._servers[number].server_address[1])

    def sent(self, key: str) -> int:
        """Bytes of bodies sent for requests whose path holds `key`."""
        return sum(request.sent for request in self.requests if key in request.path)

    def __enter__(self) -> Any:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def fault(self, key: str) -> Fault | None:
        """The fault that befalls this answer, counted."""
        with self.lock:
            found = self.faults.get(key)
            if found is None or found.times <= 0:
                return None
            if found.after > 0:
                found.after -= 1
                return None
            found.times -= 1
            return found


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    host: Host


class Handler(BaseHTTPRequestHandler):
    """Answers with bytes or a stored file; a subclass decides what."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    host_name = ""
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.server.host.latency:
            time.sleep(self.server.host.latency)
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.answer()

    def answer(self) -> None:
        """Answer one request."""
        raise NotImplementedError

    def note(self, status: int) -> Request:
        """Remember the request."""
        seen = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.host_name, self.path, seen, status)
        self.server.host.requests.append(request)
        return request

    def send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send a whole small answer."""
        shown = b"" if self.command == "HEAD" else body
        request = self.note(status)
        request.sent, request.over = len(shown), True
        self._head(status, {"Content-Length": str(len(body)), **headers})
        self.wfile.write(shown)

    def send_file(self, key: str, stored: Stored, headers: Mapping[str, str]) -> None:
        """Send a file or the range of it that was asked for, with the fault that `key` has."""
        fault = self.server.host.fault(key) if self.command == "GET" else None
        kind = fault.kind if fault else ""
        if fault and kind == "status":
            self.send(fault.status, fault.headers, b"<h1>not now</h1>")
            return
        if kind in ("html", "json"):
            body = b"<html><title>Sign in</title></html>" if kind == "html" else b'{"error": "sign in first"}'
            self.send(200, {"Content-Type": "text/html" if kind == "html" else "application/json"}, body)
            return
        if fault and kind == "hold":
            fault.held.set()
            fault.release.wait(PATIENCE)
        if kind == "gzip":
            packed = gzip.compress(stored.data[:1000])
            self._body(200, {"Content-Encoding": "gzip", **headers}, packed, 0, len(packed), None)
            return
        if fault and kind == "short":
            self._body(200, headers, stored.data[: fault.at], 0, fault.at, None)
            return
        if fault and kind == "change":
            stored = Stored(fault.other)
        data, tag = stored.data, stored.etag
        if fault and kind == "flip":
            data = data[: fault.at] + bytes([data[fault.at] ^ 1]) + data[fault.at + 1 :]
        headers = {"ETag": tag, **headers}
        span = None if kind in ("no_ranges", "chunked", "whole") else self._span(len(data), headers["ETag"])
        if span is None:
            self._body(200, headers, data, 0, len(data), fault)
        elif span[0] >= span[1]:
            self.send(416, {"Content-Range": f"bytes */{len(data)}", **headers})
        else:
            there = {"Content-Range": f"bytes {span[0]}-{span[1] - 1}/{len(data)}", "Accept-Ranges": "bytes"}
            self._body(206, {**there, **headers}, data, *span, fault)

    def _span(self, total: int, etag: str) -> tuple[int, int] | None:
        condition = self.headers.get("If-Range", "")
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if found is None or (condition and condition != etag):
            return None
        return int(found[1]), min(int(found[2]) + 1 if found[2] else total, total)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(
        self, status: int, headers: Mapping[str, str], data: bytes, start: int, end: int, fault: Fault | None
    ) -> None:
        kind = fault.kind if fault else ""
        length = end - start
        stated = {"Content-Length": str(length + (1000 if kind == "lie" else 0))}
        if kind == "chunked":
            stated = {"Transfer-Encoding": "chunked"}
        request = self.note(status)
        stop = min(max(fault.at, start), end) if fault and kind in ("stall", "truncate", "drop", "whole") else end
        try:
            self._head(status, {**stated, **headers})
            if self.command == "HEAD":
                return
            pace = (max(0, fault.at - start), fault.rate) if fault and kind == "crawl" else None
            self._pour(request, memoryview(data)[start:stop], kind == "chunked", pace)
            if kind == "stall":
                self.wfile.flush()
                self.server.host.closing.wait(60)
        finally:
            request.over = True
        if kind in ("stall", "truncate", "drop", "lie", "whole"):
            self.close_connection = True

    def _pour(self, request: Request, view: memoryview, chunked: bool, crawl: tuple[int, float] | None) -> None:
        """Send a body; `crawl` is from which of its bytes on it is sent at how many bytes per second."""
        sent, began, rate = 0, time.monotonic(), self.server.host.rate
        with contextlib.suppress(ConnectionError):
            while sent < len(view):
                slow = crawl is not None and sent >= crawl[0]
                size = max(1, int(crawl[1] / 4)) if crawl and slow else CHUNK
                if crawl and not slow:
                    size = min(size, crawl[0] - sent)
                piece = view[sent : sent + size]
                request.sent += len(piece)
                if chunked:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), bytes(piece)))
                else:
                    self.wfile.write(piece)
                sent += len(piece)
                if slow and self.server.host.closing.wait(0.25):
                    break
                if not slow and rate and (ahead := sent / rate - (time.monotonic() - began)) > 0:
                    time.sleep(ahead)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")
