"""A Hugging Face Hub on loopback, with its storage as a second host, which the real huggingface_hub downloads from."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import quote, unquote, urlsplit

REPO = "hearmeman/smoke"
COMMIT = "5e0d1a7c3b9f4e28860c2d7b1f3a9e64c8d2b075"
PATH = "tiny.safetensors"


def tiny_safetensors(values: int = 1 << 20) -> bytes:
    """A real safetensors file, 4 MiB and always the same: one float32 tensor of `values` numbers."""
    shape = {"weight": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}
    header = json.dumps(shape, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + hashlib.shake_128(b"hearmeman smoke").digest(4 * values)


@dataclass(frozen=True)
class Stored:
    """One file of a repository."""

    data: bytes
    lfs: bool = True
    """Whether it lies in large file storage, on the second host."""

    @property
    def sha256(self) -> str:
        """Its hash, which the Hub states for large files."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def blob_id(self) -> str:
        """Git's name of it, which the Hub states for small files."""
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


@dataclass(frozen=True)
class Repo:
    """One repository at one commit."""

    files: Mapping[str, Stored]
    commit: str = COMMIT
    gated: bool = False
    """Whether it is open only to `Hub.token`."""


@dataclass(frozen=True)
class Request:
    """One request that was seen."""

    method: str
    host: str
    """'hub' or 'storage'."""
    path: str
    headers: Mapping[str, str]
    status: int
    sent: int = field(default=0, compare=False)
    """Bytes of the answer's body."""


def default_repos() -> dict[str, Repo]:
    """What the demo and the smoke image fetch."""
    return {REPO: Repo({PATH: Stored(tiny_safetensors())})}


class Hub:
    """The Hub and its storage, each on a port of its own."""

    def __init__(self, repos: Mapping[str, Repo] | None = None, port: int = 0, token: str = "hf_test") -> None:
        self.repos = dict(default_repos() if repos is None else repos)
        self.token = token
        self.requests: list[Request] = []
        self._servers = [_Server(("127.0.0.1", port), _HubHandler), _Server(("127.0.0.1", 0), _StorageHandler)]
        for server in self._servers:
            server.hub = self
        self._threads = [threading.Thread(target=s.serve_forever, args=(0.05,), daemon=True) for s in self._servers]

    @property
    def port(self) -> int:
        """The Hub's port."""
        return int(self._servers[0].server_address[1])

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def storage_url(self) -> str:
        """Where large files lie."""
        return f"http://127.0.0.1:{self._servers[1].server_address[1]}"

    def by_hash(self, sha256: str) -> Stored | None:
        """The stored file of that hash."""
        files = (stored for repo in self.repos.values() for stored in repo.files.values())
        return next((stored for stored in files if stored.sha256 == sha256), None)

    def __enter__(self) -> Hub:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host_name = ""
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        """Answer one request."""
        raise NotImplementedError

    def send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send a whole answer and note the request."""
        shown = b"" if self.command == "HEAD" else body
        seen = {name.lower(): value for name, value in self.headers.items()}
        self.server.hub.requests.append(Request(self.command, self.host_name, self.path, seen, status, sent=len(shown)))
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(shown)

    def send_file(self, stored: Stored, headers: Mapping[str, str]) -> None:
        """Send a file or the range of it that was asked for."""
        total = len(stored.data)
        asked = self.headers.get("Range", "")
        if not asked:
            self.send(200, {"Accept-Ranges": "bytes", **headers}, stored.data)
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        start = int(found[1]) if found else total
        end = min(int(found[2]) if found and found[2] else total - 1, total - 1)
        if start >= total or start > end:
            self.send(416, {"Content-Range": f"bytes */{total}", **headers})
            return
        span = {"Content-Range": f"bytes {start}-{end}/{total}", "Accept-Ranges": "bytes"}
        self.send(206, {**span, **headers}, stored.data[start : end + 1])


class _HubHandler(_Handler):
    host_name = "hub"

    def answer(self) -> None:
        """`/{repo}/resolve/{revision}/{path}`: the small file itself, or a redirect to the large one."""
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", unquote(urlsplit(self.path).path))
        hub = self.server.hub
        repo = hub.repos.get(found[1]) if found else None
        if found is None or repo is None:
            self.refuse(404, "RepoNotFound", "Repository not found")
        elif repo.gated and self.headers.get("Authorization") != f"Bearer {hub.token}":
            code = 403 if self.headers.get("Authorization") else 401
            self.refuse(code, "GatedRepo", f"Access to model {found[1]} is restricted.")
        elif found[2] not in ("main", repo.commit):
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {found[2]}", {"X-Repo-Commit": repo.commit})
        elif found[3] not in repo.files:
            self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": repo.commit})
        else:
            self.resolve(repo, repo.files[found[3]], found[3])

    def resolve(self, repo: Repo, stored: Stored, path: str) -> None:
        """Answer for a file that exists."""
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{stored.blob_id}"'}
        if not stored.lfs:
            self.send_file(stored, {**headers, "Content-Disposition": f'inline; filename="{quote(path)}"'})
            return
        linked = {"X-Linked-ETag": f'"{stored.sha256}"', "X-Linked-Size": str(len(stored.data))}
        location = f"{self.server.hub.storage_url}/repos/{stored.sha256}?X-Amz-Expires=3600&X-Amz-Signature=0"
        self.send(302, {**headers, **linked, "Location": location, "Accept-Ranges": "bytes"}, b"Found. Redirecting")

    def refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        """An error as the Hub tells it: in headers."""
        told = {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
        self.send(status, told, json.dumps({"error": message}).encode())


class _StorageHandler(_Handler):
    host_name = "storage"

    def answer(self) -> None:
        """`/repos/{sha256}?signature`: the bytes; like S3, two ways of authorising at once are an error."""
        parts = urlsplit(self.path)
        stored = self.server.hub.by_hash(parts.path.rpartition("/")[2])
        if self.headers.get("Authorization"):
            self.send(400, {}, b"<Error><Code>InvalidArgument</Code>Only one auth mechanism allowed</Error>")
        elif stored is None or "X-Amz-Signature" not in parts.query:
            self.send(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
        else:
            self.send_file(stored, {"ETag": f'"{hashlib.md5(stored.data).hexdigest()}"'})


def main() -> None:
    """Serve until killed; the port is told as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    with Hub(port=parser.parse_args().port) as hub:
        print(json.dumps({"port": hub.port}), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
