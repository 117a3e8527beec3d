"""An R2 on loopback: enforces R2's documented rules, and fails on demand at any request.

The rules: developers.cloudflare.com/r2/api/s3/api, /r2/objects/multipart-objects, /r2/api/s3/extensions, /r2/api/s3/conditional-operations.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from fakes.r2_rules import Handler, Object, Request, Server, Upload
from support.ports import free_port


@dataclass
class Fault:
    """What happens instead of, or after, what a request asks for."""

    status: int = 0
    """Answer with this status and `code`; 0: cut the connection."""
    code: str = "InternalError"
    operation: str = ""
    """Only at this operation; empty: at any."""
    key: str = ""
    """Only where the key ends so."""
    times: int = 1
    """At so many requests."""
    after: bool = False
    """Do what was asked first, then fail."""
    seconds: float = 0.0
    """Wait before anything."""

    def befalls(self, operation: str, key: str) -> bool:
        """Tell whether it happens to a request."""
        return self.times > 0 and self.operation in ("", operation) and key.endswith(self.key)


class R2:
    """Runs while the context lasts."""

    def __init__(self, bucket: str = "runpod", latency: float = 0.0, keep: bool = True) -> None:
        """Name the bucket; `latency` seconds pass before each answer; `keep=False` discards contents.

        `before` is called with each request's operation and key before anything is done for it.
        """
        self.bucket, self.latency, self.keep = bucket, latency, keep
        self.access_key, self.secret_key = secrets.token_hex(16), secrets.token_hex(32)
        self.may_read = self.may_write = self.may_delete = True
        self.conditional_put = self.conditional_complete = True
        self.clock: Callable[[], float] = time.time
        self.before: Callable[[str, str], None] = lambda operation, key: None
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, Upload] = {}
        self.requests: list[Request] = []
        self.overwritten: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.port = free_port()  # It may be stopped and started again: no connection is given this one meanwhile.

    def __enter__(self) -> R2:
        """Start it on a free port."""
        self.start()
        return self

    def start(self) -> None:
        """Start; also again after `stop`, on the same port."""
        handler = type("Handler", (Handler,), {"r2": self})
        self.server = Server(("127.0.0.1", self.port), handler)
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Refuse connections from now on, and cut those that are open."""
        self.server.shutdown()
        self.server.cut()
        self.server.server_close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.stop()

    def fail(self, status: int = 0, code: str = "InternalError", **more: object) -> Fault:
        """Fail at the next requests as `Fault` says."""
        fault = Fault(status, code, **more)  # type: ignore[arg-type]
        with self.lock:
            self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """Forget all faults."""
        with self.lock:
            self.faults.clear()

    def lay(self, key: str, content: bytes) -> None:
        """Put an object there, as another client does."""
        digests = hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest()
        self.objects[key] = Object(len(content), *digests, "application/octet-stream", {}, content)

    def operations(self, operation: str) -> list[Request]:
        """Give the requests for one operation."""
        with self.lock:
            return [request for request in self.requests if request.operation == operation]

    def contents(self) -> dict[str, bytes]:
        """Key -> content."""
        with self.lock:
            return {key: found.content for key, found in self.objects.items()}

    def environ(self) -> dict[str, str]:
        """The variables that point the sync at it."""
        return {
            "ENABLE_R2_SYNC": "true",
            "R2_ENDPOINT": self.url,
            "R2_BUCKET": self.bucket,
            "R2_ACCESS_KEY_ID": self.access_key,
            "R2_SECRET_ACCESS_KEY": self.secret_key,
        }
