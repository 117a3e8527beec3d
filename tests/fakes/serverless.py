"""RunPod Serverless on loopback, as its SDK meets it: jobs are taken, stopped and answered by its rules."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from support.waiting import PATIENCE

KEY = "rpa_WORKER_KEY_that_must_not_appear_anywhere"
POD = "worker-1"
_LIMITS = {"run": 10_000_000, "sync": 20_000_000}


@dataclass
class Job:
    """One job in the queue."""

    id: str
    body: dict[str, Any]
    status: str = "IN_QUEUE"
    output: Any = None
    error: str = ""
    progress: list[Any] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    """Sizes of answers that were larger than the platform takes."""
    taken: float = 0.0
    """When a worker took it, on the monotonic clock."""
    answered: float = 0.0
    """When its answer came."""
    done: threading.Event = field(default_factory=threading.Event)


class Serverless:
    """The platform; a `with` block serves it. `poll` is how many seconds it holds a request open."""

    def __init__(self, poll: float = 2.0) -> None:
        self.poll = poll
        self.jobs: dict[str, Job] = {}
        self.pings = 0
        self.unhealthy: list[tuple[str, str]] = []
        """Workers that reported themselves unhealthy: which check failed, and why."""
        self.problems: list[str] = []
        """What was asked for against the rules."""
        self.takes = 0
        self._stops: list[str] = []
        self._changed = threading.Condition()
        handler = type("Bound", (_Handler,), {"platform": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v2/endpoint"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environ(self) -> dict[str, str]:
        """What RunPod gives a worker."""
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{self.url}/job-take/$ID?gpu=X",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{self.url}/job-done/$RUNPOD_POD_ID/$ID?gpu=X",
            "RUNPOD_WEBHOOK_PING": f"{self.url}/ping/$RUNPOD_POD_ID?gpu=X",
            "RUNPOD_AI_API_KEY": KEY,
            "RUNPOD_POD_ID": POD,
            "RUNPOD_ENDPOINT_ID": "endpoint",
            "RUNPOD_PING_INTERVAL": "1000",
        }

    def drop(self) -> int:
        """Cut every connection, as one that a restored snapshot holds is; how many there were."""
        open_now = list(self._server.connections)
        for connection in open_now:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        return len(open_now)

    def submit(self, given: Any, sync: bool = False, **more: Any) -> Job:
        """Queue a job, as /run or /runsync does."""
        job = Job(f"{'sync-' if sync else ''}{uuid.uuid4()}", {"input": given, **more})
        with self._changed:
            self.jobs[job.id] = job
            self._changed.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """Cancel a job, as /cancel does."""
        with self._changed:
            if job.status == "IN_PROGRESS":
                self._stops.append(job.id)
            job.status = "CANCELLED"
            job.done.set()
            self._changed.notify_all()

    def result(self, job: Job) -> Job:
        """Wait for a job's end."""
        assert job.done.wait(PATIENCE), f"job {job.id} is still {job.status}; {self.problems}"
        return job

    def take(self) -> dict[str, Any] | None:
        """Give the next job, after at most `poll` seconds."""
        with self._changed:
            self.takes += 1
            self._changed.wait_for(lambda: self._next() is not None, self.poll)
            job = self._next()
            if job is None:
                return None
            job.status, job.taken = "IN_PROGRESS", time.monotonic()
            return {"id": job.id, **job.body}

    def _next(self) -> Job | None:
        return next((job for job in self.jobs.values() if job.status == "IN_QUEUE"), None)

    def stops(self) -> list[str]:
        """Give the jobs to stop, after at most `poll` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._stops), self.poll)
            found, self._stops = self._stops, []
            return found

    def answered(self, job_id: str, content: bytes) -> int:
        """Take an answer or progress; gives the status."""
        with self._changed:
            job = self.jobs.get(job_id)
            if job is None:
                self.problems.append(f"an answer for {job_id}, which is no job")
                return 404
            if len(content) > _LIMITS["sync" if job_id.startswith("sync-") else "run"]:
                job.refused.append(len(content))
                return 400
            body = json.loads(content)
            if body.get("status") == "IN_PROGRESS":
                job.progress.append(body["output"])
                return 200
            if job.status == "CANCELLED":
                self.problems.append(f"an answer for {job_id}, which was cancelled")
                return 200
            if job.done.is_set():
                self.problems.append(f"a second answer for {job_id}")
            job.status = "FAILED" if body.get("error") else "COMPLETED"
            job.output, job.error, job.answered = body.get("output"), body.get("error", ""), time.monotonic()
            job.done.set()
            return 200


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Know which connections are open."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget one."""
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a worker that was ended."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    platform: Serverless

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def _checked(self, kinds: tuple[str, ...]) -> list[str] | None:
        parts = urlsplit(self.path)
        words = parts.path.strip("/").split("/")
        # The key as it is: no "Bearer" before it.
        if self.headers.get("Authorization") != KEY:
            self.platform.problems.append(f"{parts.path} without the key")
            self._send(401)
        elif words[:2] != ["v2", "endpoint"] or words[2] not in kinds or parse_qs(parts.query).get("gpu") != ["X"]:
            self.platform.problems.append(f"{self.path} is none of the platform's addresses")
            self._send(404)
        else:
            return words[2:]
        return None

    def do_GET(self) -> None:
        """A job, jobs to stop, or a ping."""
        words = self._checked(("job-take", "job-stop", "ping"))
        if words is None:
            return
        if words[1] != POD:
            self.platform.problems.append(f"{self.path} names another worker")
            self._send(404)
        elif words[0] == "job-take":
            job = self.platform.take()
            self._send(204) if job is None else self._send(200, job)
        elif words[0] == "job-stop":
            self._send(200, {"jobsToStop": self.platform.stops()})
        else:
            query = parse_qs(urlsplit(self.path).query)
            if query.get("status") == ["unhealthy"]:
                self.platform.unhealthy.append((query["check"][0], query["reason"][0]))
            self.platform.pings += 1
            self._send(200, {})

    def do_POST(self) -> None:
        """An answer, or progress."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        words = self._checked(("job-done",))
        if words is None:
            return
        if self.headers.get("Content-Type") != "application/x-www-form-urlencoded" or words[1] != POD:
            self.platform.problems.append(f"{self.path} as {self.headers.get('Content-Type')}")
            self._send(400)
            return
        self._send(self.platform.answered(words[2], content), {})

    def _send(self, status: int, body: object = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        # A worker that ends drops the requests that it holds open.
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content)
