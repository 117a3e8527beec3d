"""A Hugging Face Hub on loopback, with its storage as a second host, which the real huggingface_hub downloads from."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

from fakes.serving import Handler, Host, Stored
from fakes.xet import XetHandler, read_token

__all__ = ["COMMIT", "PATH", "REPO", "Hub", "Repo", "Stored", "safetensors", "tiny_safetensors"]

REPO = "hearmeman/smoke"
COMMIT = "5e0d1a7c3b9f4e28860c2d7b1f3a9e64c8d2b075"
PATH = "tiny.safetensors"


def safetensors(values: int, seed: bytes) -> bytes:
    """A real safetensors file, always the same for the same seed: one float32 tensor of `values` numbers."""
    shape = {"weight": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}
    header = json.dumps(shape, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + hashlib.shake_128(seed).digest(4 * values)


def tiny_safetensors() -> bytes:
    """The smoke image's model, 4 MiB."""
    return safetensors(1 << 20, b"hearmeman smoke")


@dataclass(frozen=True)
class Repo:
    """One repository at one commit."""

    files: Mapping[str, Stored]
    commit: str = COMMIT
    gated: bool = False
    """Whether it is open only to `Hub.token`."""
    private: bool = False
    """Whether nobody else is told that it exists."""
    xet: bool = False
    """Whether its large files lie in Xet storage too."""
    older: Mapping[str, Mapping[str, Stored]] = field(default_factory=dict)
    """Earlier commits and what they held: the Hub serves all of them."""
    moved_to: str = ""
    """The repository's name now, when it was renamed."""

    def at(self, revision: str) -> Repo | None:
        """The repository as it was at a branch or commit; None when it has no such revision."""
        if revision in ("main", "refs/heads/main", self.commit):
            return self
        return replace(self, files=self.older[revision], commit=revision) if revision in self.older else None


def default_repos() -> dict[str, Repo]:
    """What the demo and the smoke image fetch."""
    return {REPO: Repo({PATH: Stored(tiny_safetensors())})}


class Hub(Host):
    """The Hub and its storage, each on a port of its own. A fault's key is a large file's sha256, a small one's path, or "api"."""

    def __init__(self, repos: Mapping[str, Repo] | None = None, port: int = 0, token: str = "hf_test") -> None:
        super().__init__([(_HubHandler, port), (_StorageHandler, 0), (_XetHandler, 0)])
        self.repos = dict(default_repos() if repos is None else repos)
        self.token = token
        self.content_type = "binary/octet-stream"
        """What storage calls every file."""
        self.broken_listings = False
        """Whether the API answers 503."""
        self.links = 0
        """Links to storage that were given out."""
        self.page = 1000
        """Entries of one answer when files are listed."""
        self.unaccepted = ""
        """A token whose account has accepted no licence."""
        self.valid_from = 0
        """Links before this one have expired."""

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return self.address(0)

    def by_hash(self, sha256: str) -> Stored | None:
        """The stored file of that hash."""
        commits = (files for repo in self.repos.values() for files in (repo.files, *repo.older.values()))
        files = (stored for commit in commits for stored in commit.values())
        return next((stored for stored in files if stored.sha256 == sha256), None)


class _HubHandler(Handler):
    host_name = "hub"

    @property
    def hub(self) -> Hub:
        return cast(Hub, self.server.host)

    def answer(self) -> None:
        """`/{repo}/resolve/{revision}/{path}` redirects: for a large file to storage, for a small one to the Hub's own
        cache of it, `/api/resolve-cache/models/{repo}/{commit}/{path}`; `/api/models/{repo}` describes and lists."""
        path = unquote(urlsplit(self.path).path)
        if (found := re.match(r"/(?:api/models/)?([^/]+/[^/]+)/", path)) and self.moved(found[1]):
            return
        if self.hub.broken_listings and path.startswith("/api/models/"):
            self.send(503, {})
            return
        if fault := self.hub.fault("api"):
            page = {"Content-Type": "text/html"} if fault.kind == "html" else dict(fault.headers)
            self.send(200 if fault.kind == "html" else fault.status, page, b"<h1>not now</h1>")
            return
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo = self.repo(found[1], found[2])
            if repo is not None and found[3] not in repo.files:
                self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": repo.commit})
            elif repo is not None:
                self.resolve(found[1], repo, repo.files[found[3]], found[3])
        elif found := re.fullmatch(r"/api/resolve-cache/models/([^/]+/[^/]+)/([^/]+)/(.+)", path):
            if repo := self.repo(found[1], found[2]):
                self.small(repo, repo.files[found[3]], found[3])
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", path):
            if repo := self.repo(found[1], found[2]):
                siblings = [{"rfilename": name} for name in repo.files]
                about = {"_id": "0", "id": found[1], "modelId": found[1], "sha": repo.commit, "siblings": siblings}
                self.reply({**about, "private": False, "disabled": False, "gated": "manual" if repo.gated else False})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", path):
            if repo := self.repo(found[1], found[2]):
                self.tree(repo)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/xet-read-token/([^/]+)", path):
            if self.repo(found[1], found[2]):
                self.send(200, *read_token(self.hub.address(2)))
        else:
            self.refuse(404, "", "Not found")

    def repo(self, name: str, revision: str) -> Repo | None:
        """The repository, if it and its revision exist and it is open to the asker; else the refusal was sent."""
        repo = self.hub.repos.get(name)
        authorization = self.headers.get("Authorization")
        if repo is None or (repo.private and authorization in (None, f"Bearer {self.hub.unaccepted}")):
            self.refuse(401 if not authorization else 404, "RepoNotFound", "Repository not found")
        elif repo.gated and self.hub.unaccepted and authorization == f"Bearer {self.hub.unaccepted}":
            self.refuse(
                403, "GatedRepo", f"Access to model {name} is restricted and you are not in the authorized list."
            )
        elif authorization and authorization not in (f"Bearer {self.hub.token}", f"Bearer {self.hub.unaccepted}"):
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif repo.gated and not authorization:
            self.refuse(401, "GatedRepo", f"Access to model {name} is restricted.")
        elif (found := repo.at(revision)) is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return found
        return None

    def moved(self, name: str) -> bool:
        """Redirect to a repository's new name, as the Hub does for pages, files and its API alike."""
        repo = self.hub.repos.get(name)
        if repo is None or not repo.moved_to:
            return False
        self.send(307, {"Location": self.path.replace(name, repo.moved_to, 1)}, b"Temporary Redirect")
        return True

    def tree(self, repo: Repo) -> None:
        """List folders and files, a page at a time; the next page's address is in a header."""
        query = parse_qs(urlsplit(self.path).query)
        folders = sorted({str(up) for name in repo.files for up in PurePosixPath(name).parents} - {"."})
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in folders]
        entries += [self.entry(name, stored) for name, stored in repo.files.items()]
        first = int((query.get("cursor") or ["0"])[0])
        more = {}
        if first + self.hub.page < len(entries):
            path = urlsplit(self.path).path
            after = f"{self.hub.url}{path}?recursive=true&cursor={first + self.hub.page}"
            more = {"Link": f'<{after}>; rel="next"'}
        self.reply(entries[first : first + self.hub.page], more)

    def small(self, repo: Repo, stored: Stored, path: str) -> None:
        """Send a file that lies on the Hub itself."""
        shown = {"X-Repo-Commit": repo.commit, "ETag": f'"{stored.blob_id}"'}
        self.send_file(path, stored, {**shown, "Content-Disposition": f'inline; filename="{quote(path)}"'})

    def entry(self, path: str, stored: Stored) -> dict[str, Any]:
        """A file as the Hub lists it."""
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(stored.data), "oid": stored.blob_id}
        if stored.lfs:
            entry["lfs"] = {"oid": stored.sha256, "size": len(stored.data), "pointerSize": 134}
        return entry

    def resolve(self, name: str, repo: Repo, stored: Stored, path: str) -> None:
        """Answer for a file that exists."""
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{stored.blob_id}"'}
        if not stored.lfs:
            there = f"/api/resolve-cache/models/{name}/{repo.commit}/{quote(path)}?etag=%22{stored.blob_id}%22"
            linked = {"X-Linked-ETag": f'"{stored.blob_id}"', "X-Linked-Size": str(len(stored.data))}
            self.send(307, {"X-Repo-Commit": repo.commit, **linked, "Location": there}, b"Temporary Redirect")
            return
        sha256 = stored.sha256
        linked = {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(stored.data))}
        if repo.xet:
            linked["X-Xet-Hash"] = sha256
            linked["Link"] = f'<{self.hub.url}/api/models/{name}/xet-read-token/{repo.commit}>; rel="xet-auth"'
        with self.hub.lock:
            self.hub.links += 1
            link = self.hub.links
        location = f"{self.hub.address(1)}/repos/{sha256}?X-Amz-Expires=3600&X-Amz-Signature={link}"
        self.send(302, {**headers, **linked, "Location": location, "Accept-Ranges": "bytes"}, b"Found. Redirecting")

    def reply(self, content: object, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON."""
        self.send(200, {"Content-Type": "application/json", **(headers or {})}, json.dumps(content).encode())

    def refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        """An error as the Hub tells it: in headers."""
        told = {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
        told = {name: value for name, value in told.items() if value}
        self.send(status, told, json.dumps({"error": message}).encode())


class _StorageHandler(Handler):
    host_name = "storage"

    def answer(self) -> None:
        """`/repos/{sha256}?signature`: the bytes; like S3, two ways of authorising at once are an error."""
        hub = cast(Hub, self.server.host)
        parts = urlsplit(self.path)
        sha256 = parts.path.rpartition("/")[2]
        stored = hub.by_hash(sha256)
        signature = re.search(r"X-Amz-Signature=(\d+)", parts.query)
        if self.headers.get("Authorization"):
            self.send(400, {}, b"<Error><Code>InvalidArgument</Code>Only one auth mechanism allowed</Error>")
        elif stored is None or signature is None or int(signature[1]) < hub.valid_from:
            self.send(403, {}, b"<Error><Code>AccessDenied</Code>Request has expired</Error>")
        else:
            self.send_file(sha256, stored, {"Content-Type": hub.content_type})


class _XetHandler(XetHandler):
    def find(self, hash: str) -> Stored | None:
        """A file of the Hub."""
        return cast(Hub, self.server.host).by_hash(hash)


def main() -> None:
    """Serve until killed; the port is told as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    with Hub(port=parser.parse_args().port) as hub:
        print(json.dumps({"port": hub.port()}), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
