"""A plain web server on loopback that misbehaves on demand, and a Git LFS server beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

from fakes.serving import Handler, Host, Stored


class Web(Host):
    """Files by path. A fault's key is a file's path. `/old/PATH` redirects to a second server, where they lie too."""

    def __init__(self, files: Mapping[str, Stored]) -> None:
        super().__init__([(_Files, 0), (_Files, 0)])
        self.files = dict(files)

    @property
    def url(self) -> str:
        """Where the files are."""
        return self.address(0)


class _Files(Handler):
    host_name = "web"

    def answer(self) -> None:
        """A file, a redirect, or Git LFS's batch API."""
        web = cast(Web, self.server.host)
        path = urlsplit(self.path).path
        if path.endswith("/info/lfs/objects/batch"):
            self.batch(web)
        elif path.startswith("/old/"):
            self.send(302, {"Location": f"{web.address(1)}/{path.removeprefix('/old/')}"})
        elif path.startswith("/round/"):
            self.send(302, {"Location": path})
        elif path.lstrip("/") in web.files:
            self.send_file(path.lstrip("/"), web.files[path.lstrip("/")], {})
        else:
            self.send(404, {"Content-Type": "text/html"}, b"<h1>Not here</h1>")

    def batch(self, web: Web) -> None:
        """Tell where an object is, with the header that its storage wants."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["objects"][0]
        name = next((name for name, stored in web.files.items() if stored.sha256 == asked["oid"]), None)
        answer: dict[str, object] = {"oid": asked["oid"], "size": asked["size"]}
        if name is None:
            answer["error"] = {"code": 404, "message": "Object does not exist"}
        else:
            answer["actions"] = {"download": {"href": f"{web.address(1)}/{name}", "header": {"X-Lfs": "yes"}}}
        body = json.dumps({"transfer": "basic", "objects": [answer]}).encode()
        self.send(200, {"Content-Type": "application/vnd.git-lfs+json"}, body)
