"""CivitAI on loopback: versions, downloads that redirect to a signed address, and storage that refuses tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

from fakes.serving import Handler, Host, Stored


@dataclass(frozen=True)
class Version:
    """A version of a model."""

    files: Mapping[str, Stored]
    """Name -> file; the first is the primary one."""
    login: bool = False
    """Whether a download wants a key."""
    hashes: bool = True
    """Whether the API states hashes."""
    scans: Mapping[str, str] = field(default_factory=dict)
    """What CivitAI's scanners say where it is not Success: virusScanResult and pickleScanResult."""
    kilobytes: float | None = None
    """The size that the API states, where it is not the file's own."""


class CivitAI(Host):
    """The site and its storage, each on a port of its own. A fault's key is a file's name."""

    def __init__(self, versions: Mapping[int, Version], key: str = "civitai_test") -> None:
        super().__init__([(_Site, 0), (_Storage, 0)])
        self.versions = dict(versions)
        self.models: dict[int, tuple[int, ...]] = {}
        """Model -> the numbers of its versions, the newest first."""
        self.key = key
        self.moved = False
        """Whether the API has moved and says so by a redirect."""

    @property
    def url(self) -> str:
        """What CIVITAI_ENDPOINT is set to."""
        return self.address(0)


class _Site(Handler):
    host_name = "site"

    def answer(self) -> None:
        """The two addresses that a downloader needs."""
        site = cast(CivitAI, self.server.host)
        parts = urlsplit(self.path)
        if site.moved and parts.path.startswith("/api/v1/"):
            self.send(301, {"Location": parts.path.replace("/api/v1/", "/api/moved/")})
        elif found := re.fullmatch(r"/api/(?:v1|moved)/model-versions/(\d+)", parts.path):
            version = site.versions.get(int(found[1]))
            if version is None:
                self.send(404, {"Content-Type": "application/json"}, b'{"error":"No version with that id"}')
            else:
                self.send(
                    200,
                    {"Content-Type": "application/json"},
                    json.dumps(self.describe(int(found[1]), version)).encode(),
                )
        elif found := re.fullmatch(r"/api/v1/models/(\d+)", parts.path):
            numbers = site.models.get(int(found[1]), ())
            versions = [self.describe(number, site.versions[number]) for number in numbers]
            about = {"id": int(found[1]), "name": f"Model {found[1]}", "modelVersions": versions}
            body = json.dumps(about if versions else {"error": "No model with that id"}).encode()
            self.send(200 if versions else 404, {"Content-Type": "application/json"}, body)
        elif found := re.fullmatch(r"/api/download/models/(\d+)", parts.path):
            self.download(site, int(found[1]), parse_qs(parts.query))
        else:
            self.send(200, {"Content-Type": "text/html"}, b"<html><title>Civitai</title></html>")

    def describe(self, number: int, version: Version) -> dict[str, object]:
        """A version as the API tells it."""
        files = []
        for place, (name, stored) in enumerate(version.files.items()):
            url = f"{self.server.host.address(0)}/api/download/models/{number}?fileId={9000 + place}"
            hashes = {"SHA256": stored.sha256.upper(), "AutoV2": stored.sha256[:10].upper()} if version.hashes else {}
            files.append(
                {
                    "id": 9000 + place,
                    "name": name,
                    "sizeKB": len(stored.data) / 1024 if version.kilobytes is None else version.kilobytes,
                    "type": "Model",
                    "pickleScanResult": "Success",
                    "virusScanResult": "Success",
                    "scannedAt": "2026-01-01T00:00:00.000Z",
                    **version.scans,
                    "primary": place == 0,
                    "hashes": hashes,
                    "downloadUrl": url,
                }
            )
        about = {"id": number, "modelId": 1, "name": "v1", "baseModel": "SD 1.5", "availability": "Public"}
        return {**about, "files": files, "downloadUrl": f"{self.server.host.address(0)}/api/download/models/{number}"}

    def download(self, site: CivitAI, number: int, query: Mapping[str, list[str]]) -> None:
        """Redirect to storage, or to the login."""
        version = site.versions[number]
        if version.login and self.headers.get("Authorization") != f"Bearer {site.key}":
            if self.headers.get("Authorization"):
                self.send(
                    401, {"Content-Type": "application/json"}, b'{"error":"Unauthorized","message":"Invalid key"}'
                )
            else:
                self.send(307, {"Location": "/login?returnUrl=%2F&reason=download-auth"})
            return
        place = int(query.get("fileId", ["9000"])[0]) - 9000
        name = list(version.files)[place]
        self.send(
            307, {"Location": f"{site.address(1)}/bucket/{number}/{quote(name)}?X-Amz-Expires=86400&X-Amz-Signature=1"}
        )


class _Storage(Handler):
    host_name = "storage"

    def answer(self) -> None:
        """The bytes; an Authorization header beside the signature is an error, as in S3."""
        site = cast(CivitAI, self.server.host)
        found = re.fullmatch(r"/bucket/(\d+)/(.+)", unquote(urlsplit(self.path).path))
        if self.headers.get("Authorization"):
            self.send(400, {}, b"<Error><Code>InvalidArgument</Code></Error>")
        elif found is None:
            self.send(404, {}, b"")
        else:
            self.send_file(found[2], site.versions[int(found[1])].files[found[2]], {})
