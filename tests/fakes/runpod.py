"""RunPod's REST API v2 on loopback, after its own OpenAPI file: every request and answer is validated, faults on demand.

It is also the proxy to the pods' ports, below /proxy/ID/PORT/.
"""

from __future__ import annotations

import json
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import parse_qs, urlsplit

from hearmeman_pod import schema

KEY = "rpa_KEY_that_must_not_appear_anywhere"

GPUS: tuple[dict[str, Any], ...] = tuple(
    {
        "id": name,
        "name": name.removeprefix("NVIDIA "),
        "pool": None,
        "manufacturer": "NVIDIA",
        "memory": memory,
        "secure": True,
        "community": True,
        "price": {"secure": price, "community": price / 2},
        "maxCount": {"secure": 8, "community": 4},
        "availability": stock,
        "dataCenters": [{"id": "US-KS-2", "name": "Kansas", "availability": stock}],
    }
    for name, memory, price, stock in (
        ("NVIDIA GeForce RTX 4090", 24, 0.69, "HIGH"),
        ("NVIDIA GeForce RTX 5090", 32, 0.89, "MEDIUM"),
        ("NVIDIA RTX A6000", 48, 0.79, "LOW"),
        ("NVIDIA H100 80GB HBM3", 80, 2.99, "NONE"),
        ("NVIDIA A100 80GB PCIe", 80, 1.39, "LOW"),
    )
)


@dataclass
class FakePod:
    """One pod of the account."""

    body: dict[str, Any]
    polls: int = 0
    """How often its state was asked for since it was started."""
    status: str = "PROVISIONING"
    cost: float = 0.69
    cuda: str = "12.8"


@dataclass
class RunPod:
    """The server. `creates` and `deletes` hold what happens to the next requests of that kind, in order."""

    creates: deque[str] = field(default_factory=deque)
    """ok, capacity, rule, broke, forbidden, busy, 500-before, 500-after, drop-after, late, overtaken, interrupted,
    interrupted-later, then-interrupted, html"""
    deletes: deque[str] = field(default_factory=deque)
    """ok, 500-before, drop-after, 409, interrupted"""
    ends_as: str = "RUNNING"
    """What a pod becomes after some polls."""
    cost: float = 0.69
    cuda: str = "12.8"
    ready_after: int = 2
    """Polls of /readyz until a pod says that it is ready."""
    queue: int = 0
    """Jobs in ComfyUI's queue."""
    gate: str = ""
    """ACCESS_TOKEN that the pods ask for; empty: none."""
    comfyui: str = ""
    """Address of what answers as the pods' ComfyUI, behind a gate that takes their ACCESS_TOKEN."""
    logs: tuple[str, ...] = ("pulling image", "started")
    cut_logs: bool = False
    """Whether a log stream breaks after each line."""
    key: str = KEY

    def __post_init__(self) -> None:
        self.pods: dict[str, FakePod] = {}
        self.templates: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.lost: deque[str] = deque()
        """What happens to the next answers about jobs: drop-after, expired."""
        self.requests: list[tuple[str, str, Any]] = []
        self.invalid: list[str] = []
        """Requests and answers that broke RunPod's schema."""
        self.hidden: dict[str, float] = {}
        """Pods that the list does not show before this time."""
        self.overtaken: set[str] = set()
        """Pods that the list does not show before another one runs."""
        self.unlisted: dict[str, int] = {}
        """Pods that the next so many lists do not show."""
        self.interrupt_list = False
        """Whether Ctrl-C comes when the list is asked for next."""
        self.lock = threading.RLock()
        self.readiness: dict[str, int] = {}

    def __enter__(self) -> Self:
        owner = self

        bound = type("Bound", (_Handler,), {"fake": owner})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        """The API's address."""
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def proxy(self) -> str:
        """The pods' address, with {id} and {port}."""
        return self.url + "/proxy/{id}/{port}"

    @property
    def live(self) -> list[str]:
        """Pods that cost money."""
        return [pod_id for pod_id, pod in self.pods.items() if pod.status not in ("TERMINATED", "EXITED")]

    def made(self, body: dict[str, Any], status: str = "PROVISIONING") -> str:
        """Put a pod there."""
        with self.lock:
            pod_id = f"pod{len(self.pods)}"
            self.pods[pod_id] = FakePod(body, status=status, cost=self.cost, cuda=self.cuda)
            return pod_id

    def shown(self, pod_id: str) -> dict[str, Any]:
        """A pod as the API gives it."""
        pod = self.pods[pod_id]
        actions = {
            "RUNNING": ["stop", "restart", "terminate"],
            "EXITED": ["start", "terminate"],
            "ERROR": ["start", "terminate"],
        }
        running = pod.status == "RUNNING"
        end = {"host": "127.0.0.1", "port": 2222, "username": "root", "command": "ssh root@127.0.0.1 -p 2222"}
        answer: dict[str, Any] = {
            "id": pod_id,
            "name": pod.body["name"],
            "status": pod.status,
            "actions": actions.get(pod.status, ["stop", "terminate"]),
            "image": pod.body["image"],
            "args": "",
            "disk": pod.body.get("disk", 20),
            "mounts": pod.body.get("mounts", {}),
            "ports": pod.body.get("ports", []),
            "env": pod.body.get("env", {}),
            "registry": pod.body.get("registry"),
            "gpu": {key: pod.body["gpu"][key] for key in ("id", "count")},
            "cloud": pod.body.get("cloud", "SECURE"),
            "dataCenterId": "US-KS-2",
            "cudaVersion": pod.cuda,
            "ssh": {"proxy": None, "direct": end if running else None},
            "template": None,
            "cost": 0.0 if pod.status in ("EXITED", "TERMINATED") else pod.cost,
            "locked": False,
            "globalNetworking": {"enabled": False},
            "runtime": {"uptime": 5} if running else None,
            "createdAt": "2026-11-25T12:00:00Z",
            "startedAt": "2026-11-25T12:02:00Z" if running else None,
        }
        self.invalid += [f"answer Pod: {text}" for text in schema.problems("Pod", answer)]
        return answer


class _Handler(BaseHTTPRequestHandler):
    fake: RunPod
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length)
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        fake = self.fake
        if parts.path.startswith("/proxy/"):
            with fake.lock:
                fake.requests.append((method, parts.path, None))
            self._inside(parts.path, method, text)
            return
        body = json.loads(text) if text else None
        with fake.lock:
            fake.requests.append((method, parts.path, body))
        if self.headers.get("Authorization") != f"Bearer {fake.key}":
            self._problem(401, "Unauthorized", "the key is not valid")
            return
        if parts.path.split("/")[2] in fake.endpoints:
            self._job(method, parts.path.split("/")[2:], body, length)
            return
        operation = _operation(method, parts.path)
        if operation is None:
            fake.invalid.append(f"{method} {parts.path} is no operation of the API")
            self._problem(404, "Not Found", "no such path")
            return
        known = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"}
        fake.invalid += [f"{method} {parts.path}: no parameter {name}" for name in query if name not in known]
        name = operation["schema"]
        if name:
            wrong = schema.problems(name, body)
            if wrong:
                fake.invalid += wrong
                self._problem(422, "Unprocessable Entity", "the request does not match the contract", wrong)
                return
        self._route(method, parts.path, query, body)

    def _route(self, method: str, path: str, query: Mapping[str, str], body: Any) -> None:
        fake = self.fake
        words = path.removeprefix("/v2/").split("/")
        if words == ["pods"]:
            self._create(body) if method == "POST" else self._list()
        elif words[0] == "pods" and words[1] not in fake.pods:
            self._problem(404, "Not Found", "pod not found")
        elif words[0] == "pods" and words[2:] == ["logs"]:
            self._logs()
        elif words[0] == "pods" and words[2:] == ["action"]:
            self._action(words[1], body["action"])
        elif words[0] == "pods" and method == "DELETE":
            self._delete(words[1])
        elif words[0] == "pods":
            self._poll(words[1])
        elif words == ["catalog", "gpus"]:
            if query.get("include") and not query.get("product"):
                self._problem(400, "Bad Request", "include=AVAILABILITY requires product")
            else:
                self._send(200, {"gpus": [*GPUS]})
        elif words[0] == "network-volumes" and len(words) == 2:
            self._send(200, {"id": words[1], "name": "v", "size": 100, "dataCenter": "US-KS-2", "type": "STANDARD"})
        elif words[0] == "billing":
            amounts = {"totalAmount": 1.25, "gpuAmount": 1.0, "cpuAmount": 0, "diskAmount": 0.25}
            times = {"startTime": "2026-11-24T00:00:00Z", "endTime": "2026-11-25T00:00:00Z"}
            records = [{**times, **amounts, "podId": "pod0"}] if words[1] == "pods" else []
            self._send(200, {"records": records, "metadata": {}})
        elif words == ["network-volumes"]:
            one = {"id": "vol1", "name": "v", "size": 100, "dataCenter": "US-KS-2", "type": "STANDARD"}
            self._send(200, {"networkVolumes": [one]})
        elif words[0] == "serverless":
            self._serverless(method, words[1:], body)
        elif words[0] == "templates":
            self._templates(method, words[1:], body)
        else:
            self._problem(404, "Not Found", "the fake does not know this")

    def _create(self, body: dict[str, Any]) -> None:
        fake = self.fake
        what = fake.creates.popleft() if fake.creates else "ok"
        refusals = {
            "capacity": (
                400,
                "Bad Request",
                "There are no longer any instances available with the requested specifications.",
            ),
            "rule": (400, "Bad Request", "mounts.persistent and mounts.network are mutually exclusive"),
            "broke": (402, "Payment Required", "insufficient balance"),
            "forbidden": (403, "Forbidden", "your account cannot access this pool"),
            "500-before": (500, "Internal Server Error", "upstream failed"),
        }
        if what in refusals:
            self._problem(*refusals[what])
        elif what == "busy":
            self._problem(429, "Too Many Requests", "slow down", headers={"Retry-After": "1"})
        elif what == "html":
            self._raw(502, b"<html>bad gateway</html>", "text/html")
        else:
            with fake.lock:
                pod_id = fake.made(body)
                if what == "late":
                    fake.hidden[pod_id] = time.monotonic() + 0.3
                elif what == "overtaken":
                    fake.overtaken.add(pod_id)
                elif what.startswith("interrupted"):
                    fake.unlisted[pod_id] = 2
                    fake.interrupt_list = what == "interrupted-later"
                elif what == "then-interrupted":
                    fake.interrupt_list = True
            if what == "interrupted":
                self._interrupt()
            elif what in ("500-after", "late", "overtaken", "interrupted-later"):
                self._problem(500, "Internal Server Error", "upstream failed")
            elif what == "drop-after":
                self.close_connection = True
                self.connection.close()
            else:
                self._send(201, fake.shown(pod_id))

    def _interrupt(self) -> None:
        """Press Ctrl-C for whoever waits for this answer, which is the test's own thread."""
        signal.pthread_kill(cast(int, threading.main_thread().ident), signal.SIGINT)
        self.close_connection = True

    def _list(self) -> None:
        fake, now = self.fake, time.monotonic()
        if fake.interrupt_list:
            fake.interrupt_list = False
            self._interrupt()
            return
        with fake.lock:
            unseen = fake.overtaken | {pod_id for pod_id, left in fake.unlisted.items() if left > 0}
            shown = [
                fake.shown(pod_id)
                for pod_id, pod in fake.pods.items()
                if pod.status != "TERMINATED" and fake.hidden.get(pod_id, 0) <= now and pod_id not in unseen
            ]
            fake.unlisted = {pod_id: left - 1 for pod_id, left in fake.unlisted.items()}
        self._send(200, {"pods": shown})

    def _poll(self, pod_id: str) -> None:
        pod = self.fake.pods[pod_id]
        pod.polls += 1
        if pod.status in ("PROVISIONING", "STARTING"):
            pod.status = self.fake.ends_as if pod.polls > 1 else "STARTING"
        if pod.status == "RUNNING":
            self.fake.overtaken.clear()
        self._send(200, self.fake.shown(pod_id))

    def _action(self, pod_id: str, action: str) -> None:
        pod = self.fake.pods[pod_id]
        if action not in self.fake.shown(pod_id)["actions"]:
            self._problem(409, "Conflict", f"{action} is not allowed while {pod.status}")
            return
        pod.status = {"start": "STARTING", "stop": "EXITED", "restart": "RUNNING", "terminate": "TERMINATED"}[action]
        self._send(200, self.fake.shown(pod_id))

    def _delete(self, pod_id: str) -> None:
        what = self.fake.deletes.popleft() if self.fake.deletes else "ok"
        if what == "500-before":
            self._problem(500, "Internal Server Error", "upstream failed")
            return
        if what == "interrupted":
            self._interrupt()
            return
        if what == "409":
            self._problem(409, "Conflict", "belongs to a cluster")
            return
        self.fake.pods[pod_id].status = "TERMINATED"
        if what == "drop-after":
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(204)
        self.end_headers()

    def _templates(self, method: str, words: list[str], body: Any) -> None:
        fake = self.fake
        if method == "GET":
            self._send(200, {"templates": [*fake.templates.values()]})
            return
        template_id = words[0] if words else f"tpl{len(fake.templates)}"
        fake.templates[template_id] = {**fake.templates.get(template_id, {}), **body, "id": template_id}
        self._send(201 if method == "POST" else 200, fake.templates[template_id])

    def _serverless(self, method: str, words: list[str], body: Any) -> None:
        fake = self.fake
        if method == "POST":
            made_id = f"ep{len(fake.endpoints)}"
            kept = {key: value for key, value in body.items() if key != "ports"}
            defaults = {"dataCenterIds": [], "networkVolumes": [], "createdAt": "2026-11-25T12:00:00Z"}
            name = body["name"] + (" -fb" if body["flashboot"] != "OFF" else "")
            gpu = {"allowedCudaVersions": [], "minCudaVersion": None, **body["gpu"]}
            made = {**defaults, **kept, "gpu": gpu, "id": made_id, "name": name}
            fake.invalid += [f"answer Endpoint: {text}" for text in schema.problems("Endpoint", made)]
            fake.endpoints[made_id] = made
            if fake.creates and fake.creates.popleft() == "drop-after":
                self.close_connection = True
                self.connection.close()
            else:
                self._send(201, made)
        elif not words:
            self._send(200, {"endpoints": [*fake.endpoints.values()]})
        elif words[0] not in fake.endpoints:
            self._problem(404, "Not Found", "endpoint not found")
        elif words[1:] == ["workers"]:
            states = ("running", "idle", "initializing", "throttled", "unhealthy", "total")
            answer = {"workers": [], "summary": dict.fromkeys(states, 0)}
            fake.invalid += schema.problems("ListEndpointWorkersResponse", answer)
            self._send(200, answer)
        elif method == "DELETE" and fake.endpoints[words[0]]["workers"]["max"]:
            self._problem(409, "Conflict", "the endpoint has workers")
        elif method == "DELETE":
            del fake.endpoints[words[0]]
            self.send_response(204)
            self.end_headers()
        else:
            fake.endpoints[words[0]] |= body or {}
            self._send(200, fake.endpoints[words[0]])

    def _job(self, method: str, words: list[str], body: Any, length: int) -> None:
        """The queue of an endpoint: /run, /status/ID, /cancel/ID, /health; a job is done at the second look."""
        fake = self.fake
        what = fake.lost.popleft() if fake.lost else ""
        if (method, words[1:]) == ("POST", ["run"]):
            if not isinstance(body, dict) or not isinstance(body.get("input"), dict) or length > 10_000_000:
                self._problem(400, "Bad Request", "a job is an object with an input, of at most 10 MB")
                return
            job = f"job{len(fake.jobs)}"
            fake.jobs[job] = {"id": job, "status": "IN_QUEUE", "input": body["input"]}
            if what == "drop-after":
                self.close_connection = True
                self.connection.close()
            else:
                self._send(200, {"id": job, "status": "IN_QUEUE"})
        elif (method, words[1:]) == ("GET", ["health"]):
            self._send(200, {"jobs": {"inQueue": 0, "completed": len(fake.jobs)}, "workers": {"idle": 1}})
        elif len(words) != 3 or words[2] not in fake.jobs or what == "expired":
            self._problem(404, "Not Found", "job not found")
        elif (method, words[1]) == ("POST", "cancel"):
            fake.jobs[words[2]]["status"] = "CANCELLED"
            self._send(200, {"id": words[2], "status": "CANCELLED"})
        elif (method, words[1]) == ("GET", "status"):
            self._state(fake.jobs[words[2]])
        else:
            self._problem(404, "Not Found", "no such route")

    def _state(self, job: dict[str, Any]) -> None:
        if job["status"] == "IN_QUEUE":
            job["status"] = "IN_PROGRESS"
        elif job["status"] == "IN_PROGRESS" and job["input"].get("set", {}).get("prompt") == "fail":
            job |= {"status": "FAILED", "error": "node 3: out of memory", "executionTime": 1000}
        elif job["status"] == "IN_PROGRESS":
            file = {"filename": "../a.png", "type": "base64", "data": "cGljdHVyZQ=="}
            job |= {"status": "COMPLETED", "executionTime": 2500, "output": {"images": [file, file], "texts": []}}
        self._send(200, {key: value for key, value in job.items() if key != "input"})

    def _logs(self) -> None:
        fake = self.fake
        seen = self.headers.get("Last-Event-ID", "")
        lines = [
            (f"2026-11-25T12:00:{number:02}Z", line)
            for number, line in enumerate(fake.logs)
            if f"2026-11-25T12:00:{number:02}Z" > seen
        ]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for when, line in lines[:1] if fake.cut_logs else lines:
            data = json.dumps({"source": "container", "line": line, "ts": when})
            self.wfile.write(f"id: {when}\ndata: {data}\n\n".encode())
            self.wfile.flush()

    def _inside(self, path: str, method: str, text: bytes) -> None:
        fake = self.fake
        _, _, pod_id, port, *rest = path.split("/")
        what = "/" + "/".join(rest)
        pod = fake.pods.get(pod_id)
        if pod is None or pod.status != "RUNNING":
            self._raw(404, b"", "text/html")
            return
        gate = fake.gate or pod.body["env"].get("ACCESS_TOKEN", "") * bool(fake.comfyui)
        if gate and what != "/healthz" and self.headers.get("Authorization") != f"Bearer {gate}":
            self._send(401, {"detail": "token"})
            return
        if port == "8188" and fake.comfyui:
            self._pass_on(method, fake.comfyui + what, text)
        elif port == "8188" and what == "/queue":
            jobs = [[number] for number in range(fake.queue)]
            self._send(200, {"queue_running": jobs[:1], "queue_pending": jobs[1:]})
        elif what == "/readyz":
            fake.readiness[pod_id] = fake.readiness.get(pod_id, 0) + 1
            self._send(200 if fake.readiness[pod_id] > fake.ready_after else 503, {})
        elif what == "/healthz":
            self._send(200, {})
        else:
            self._send(200, {"ready": False, "models": {"done_bytes": 5, "total_bytes": 10}})

    def _pass_on(self, method: str, url: str, text: bytes) -> None:
        """Let the ComfyUI answer; without websockets, which RunPod's proxy may refuse as well."""
        query = urlsplit(self.path).query
        headers = {"Content-Type": self.headers.get("Content-Type") or "application/json"}
        request = urllib.request.Request(f"{url}?{query}", text or None, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                self._raw(answer.status, answer.read(), answer.headers.get("Content-Type", ""))
        except urllib.error.HTTPError as error:
            self._raw(error.code, error.read(), error.headers.get("Content-Type", ""))
        except OSError:
            self._raw(502, b"<h1>Bad gateway</h1>", "text/html")

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


def _operation(method: str, path: str) -> dict[str, Any] | None:
    """Find the operation in RunPod's description: its parameters and the name of its body's schema."""
    whole = schema.description()
    for pattern, methods in whole["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), path) and method.lower() in methods:
            found = methods[method.lower()]
            listed = [*methods.get("parameters", []), *found.get("parameters", [])]
            parameters = [
                whole["components"]["parameters"][item["$ref"].rpartition("/")[2]] if "$ref" in item else item
                for item in listed
            ]
            body = found.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            return {"parameters": parameters, "schema": body.get("$ref", "").rpartition("/")[2]}
    return None
