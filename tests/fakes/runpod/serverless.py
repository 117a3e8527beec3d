"""/v2/serverless, and the queue of an endpoint."""

from __future__ import annotations

from typing import Any

from fakes.runpod.answers import Answers
from hearmeman_pod import schema


class Serverless(Answers):
    """The routes below /v2/serverless, and /v2/ENDPOINT of the jobs."""

    def _serverless(self, method: str, words: list[str], body: Any) -> None:
        fake = self.fake
        if method == "POST" and fake.creates and fake.creates[0] == "500-before":
            fake.creates.popleft()
            self._problem(500, "Internal Server Error", "upstream failed")
        elif method == "POST":
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
        elif words[1:] == ["releases"]:
            latest, total = fake.rollout
            percent = round(100 * latest / total) if total else 0
            rollout = {"inProgress": latest < total, "workersOnLatest": latest, "workersTotal": total}
            answer = {"rollout": rollout | {"percentOnLatest": percent}, "releases": []}
            fake.invalid += schema.problems("ListEndpointReleasesResponse", answer)
            self._send(200, answer)
        elif method == "DELETE" and fake.endpoints[words[0]]["workers"]["max"]:
            self._problem(409, "Conflict", "the endpoint has workers")
        elif method == "DELETE":
            del fake.endpoints[words[0]]
            self.send_response(204)
            self.end_headers()
        elif method == "PATCH":
            self._update(words[0], body)
        else:
            self._send(200, fake.endpoints[words[0]])

    def _update(self, endpoint: str, body: dict[str, Any]) -> None:
        """What is left out stays, also within workers and gpu; an environment is replaced whole."""
        fake = self.fake
        what = fake.patches.popleft() if fake.patches else "ok"
        if what == "500-before":
            self._problem(500, "Internal Server Error", "upstream failed")
            return
        known = fake.endpoints[endpoint]
        merged: dict[str, Any] = {key: {**known[key], **body[key]} for key in ("gpu", "workers") if key in body}
        if "pools" in body.get("gpu", {}) and "excludedTypes" not in body["gpu"]:
            merged["gpu"].pop("excludedTypes", None)
        if merged.get("gpu", {}).get("minCudaVersion") and merged["gpu"]["allowedCudaVersions"]:
            self._problem(400, "Bad Request", "minCudaVersion and allowedCudaVersions exclude each other")
            return
        if (merged.get("workers") or known["workers"])["max"] < (merged.get("workers") or known["workers"])["min"]:
            self._problem(400, "Bad Request", "workers.max is below workers.min")
            return
        fake.endpoints[endpoint] = {**known, **body, **merged}
        fake.invalid += schema.problems("Endpoint", fake.endpoints[endpoint])
        if what == "drop-after":
            self.close_connection = True
            self.connection.close()
        else:
            self._send(200, fake.endpoints[endpoint])

    def _job(self, method: str, words: list[str], body: Any, length: int) -> None:
        """The queue of an endpoint: /run, /status/ID, /cancel/ID, /retry/ID, /purge-queue, /health.

        A job is done at the second look, or when all its progress was looked at.
        """
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
            waiting = sum(job["status"] == "IN_QUEUE" for job in fake.jobs.values())
            jobs = {"inQueue": waiting, "completed": len(fake.jobs) - waiting}
            self._send(200, {"jobs": jobs, "workers": {"idle": 1}})
        elif (method, words[1:]) == ("POST", ["purge-queue"]):
            waiting = [job for job in fake.jobs.values() if job["status"] == "IN_QUEUE"]
            for job in waiting:
                job["status"] = "CANCELLED"
            self._send(200, {"removed": len(waiting), "status": "completed"})
        elif len(words) != 3 or words[2] not in fake.jobs or what == "expired":
            self._problem(404, "Not Found", "job not found")
        elif (method, words[1]) == ("POST", "cancel"):
            fake.jobs[words[2]]["status"] = "CANCELLED"
            self._send(200, {"id": words[2], "status": "CANCELLED"})
        elif (method, words[1]) == ("POST", "retry"):
            self._retry(fake.jobs[words[2]])
        elif (method, words[1]) == ("GET", "status"):
            self._state(fake.jobs[words[2]])
        else:
            self._problem(404, "Not Found", "no such route")

    def _retry(self, job: dict[str, Any]) -> None:
        if job["status"] not in ("FAILED", "TIMED_OUT"):
            self._problem(400, "Bad Request", "only failed and timed out jobs can be retried")
            return
        for key in ("output", "error", "executionTime"):
            job.pop(key, None)
        # Memory was short only once.
        job |= {"status": "IN_QUEUE", "looks": 0, "input": {**job["input"], "set": {}}}
        self._send(200, {"id": job["id"], "status": "IN_QUEUE"})

    def _state(self, job: dict[str, Any]) -> None:
        looks = job["looks"] = job.get("looks", 0) + 1
        if job["status"] == "IN_QUEUE":
            job["status"] = "IN_PROGRESS"
        elif job["status"] == "IN_PROGRESS" and looks - 2 < len(self.fake.progress):
            job["output"] = self.fake.progress[looks - 2]
        elif job["status"] == "IN_PROGRESS" and job["input"].get("set", {}).get("prompt") == "fail":
            job |= {"status": "FAILED", "error": "node 3: out of memory", "executionTime": 1000}
        elif job["status"] == "IN_PROGRESS":
            file = {"filename": "../a.png", "type": "base64", "data": "cGljdHVyZQ=="}
            job |= {"status": "COMPLETED", "executionTime": 2500, "output": {"images": [file, file], "texts": []}}
        self._send(200, {key: value for key, value in job.items() if key not in ("input", "looks")})
