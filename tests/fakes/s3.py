"""A real S3 server, `rclone serve s3`, on loopback with fresh keys."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path
from types import TracebackType

from support.ports import free_port
from support.waiting import PATIENCE

# A parent that dies by SIGKILL takes the server along.
_LINKED = ["setpriv", "--pdeathsig", "KILL", "--"]


class S3:
    """Runs while the context lasts; the folder `runpod` of `root` is the bucket."""

    def __init__(self, bucket: str = "runpod") -> None:
        """Name the bucket; nothing runs yet."""
        self.bucket = bucket
        self.access_key = secrets.token_hex(8)
        self.secret_key = secrets.token_hex(16)

    def __enter__(self) -> S3:
        """Start the server and wait until it answers."""
        self._folder = tempfile.TemporaryDirectory(prefix="s3-")
        self.root = Path(self._folder.name) / "s3"
        (self.root / self.bucket).mkdir(parents=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()
        return self

    def start(self) -> None:
        """Start the server on its port; also again after `stop`."""
        rclone = Path(sysconfig.get_path("scripts")) / "rclone"
        # The variable is read as a line of CSV, so the pair with its comma stands in quotes.
        environment = {"RCLONE_AUTH_KEY": f'"{self.access_key},{self.secret_key}"', "RCLONE_CONFIG": ""}
        with (self.root.parent / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*_LINKED, str(rclone), "serve", "s3", "--addr", f"127.0.0.1:{self.port}", str(self.root)],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        self.stop()
        raise AssertionError(f"rclone serve s3 did not start: {(self.root.parent / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """End the server; what it stored stays."""
        self.process.kill()
        self.process.wait()

    def objects(self) -> dict[str, bytes]:
        """Key -> content of every object; one that is still being written is none yet."""
        folder, found = self.root / self.bucket, {}
        # os.walk passes over a folder that goes meanwhile, as rclone removes those that become empty.
        for parent, _, names in os.walk(folder):
            for path in (Path(parent, name) for name in names if not name.startswith(".rclone_temp_")):
                with contextlib.suppress(FileNotFoundError):
                    found[str(path.relative_to(folder))] = path.read_bytes()
        return found

    def environ(self) -> dict[str, str]:
        """The variables that point the sync at it."""
        return {
            "ENABLE_R2_SYNC": "true",
            "R2_ENDPOINT": self.url,
            "R2_BUCKET": self.bucket,
            "R2_ACCESS_KEY_ID": self.access_key,
            "R2_SECRET_ACCESS_KEY": self.secret_key,
        }

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the server and delete what it stored."""
        self.stop()
        self._folder.cleanup()
