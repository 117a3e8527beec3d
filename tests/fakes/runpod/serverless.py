"""/v2/serverless, and the queue of an endpoint."""

from __future__ import annotations

from typing import Any

from fakes.runpod.answers import Answers
from hearmeman_pod import schema


class Serverless(Answers):
    """The routes below /v2/serverless, and /v2/ENDPOINT of the jobs."""

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
