"""Debian's docker-registry on loopback: a real registry to push to."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from support.ports import free_port
from support.waiting import PATIENCE


class Registry:
    """A running registry; a `with` block ends it."""

    def __init__(self, more: str = "") -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self.address = f"127.0.0.1:{free_port()}"
        """HOST:PORT."""
        self.log = folder / "log"
        """What it printed: a line for each request."""
        config = folder / "config.yml"
        config.write_text(
            f"version: 0.1\nlog:\n  accesslog:\n    disabled: false\nhttp:\n  addr: {self.address}\n"
            f"storage:\n  filesystem:\n    rootdirectory: {folder}/blobs\n  delete:\n    enabled: true\n{more}"
        )
        # It takes every REGISTRY_ variable for its configuration; skopeo's REGISTRY_AUTH_FILE is none.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
        command = ["docker-registry", "serve", str(config)]
        with self.log.open("w") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)

    def __enter__(self) -> Self:
        end = time.monotonic() + 60
        while time.monotonic() < end and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"http://{self.address}/", timeout=5)
                return self
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"docker-registry does not answer: {self.log.read_text()}")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)
        self._folder.cleanup()

    def lay(self, name: str, tag: str) -> str:
        """Put an image without layers there, as another client does; its digest."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
        kind = "application/vnd.oci.image"
        described = {"mediaType": f"{kind}.config.v1+json", "size": len(config), "digest": _digest(config)}
        manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json", "config": described, "layers": []}
        )
        base = f"http://{self.address}/v2/{name}"
        with urllib.request.urlopen(urllib.request.Request(f"{base}/blobs/uploads/", b"", method="POST")) as answer:
            place = answer.headers["Location"]
        _put(f"{place}&digest={_digest(config)}", config, "application/octet-stream")
        _put(f"{base}/manifests/{tag}", manifest, f"{kind}.manifest.v1+json")
        return _digest(manifest)

    def uploads(self) -> int:
        """How many blobs were sent to it."""
        return self.log.read_text().count('"PATCH /v2/')


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _put(url: str, text: str, kind: str) -> None:
    request = urllib.request.Request(url, text.encode(), {"Content-Type": kind}, method="PUT")
    urllib.request.urlopen(request, timeout=PATIENCE).close()
