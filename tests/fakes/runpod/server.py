"""The server: every request is checked against RunPod's own OpenAPI file before it is carried out."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from fakes.runpod.account import GPUS, Account
from fakes.runpod.pods import Pods
from fakes.runpod.proxy import Proxy
from fakes.runpod.serverless import Serverless
from hearmeman_pod import schema


class RunPod(Account):
    """An account with a server before it, which runs within `with`."""

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
        self.leaving.set()
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


class _Handler(Pods, Serverless, Proxy):
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
            self._logs(query.get("source", ""))
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
        elif words[0] == "network-volumes":
            self._volumes(method, words[1:], body)
        elif words[0] == "billing":
            self._bill(words[1], query)
        elif words[0] == "serverless":
            self._serverless(method, words[1:], body)
        elif words[0] == "templates":
            self._templates(method, words[1:], body)
        else:
            self._problem(404, "Not Found", "the fake does not know this")

    def _bill(self, kind: str, query: Mapping[str, str]) -> None:
        """Two records of what was billed for each thing that there is, and one of a pod that is gone."""
        key, answer, parts, ids = {
            "pods": ("podId", "ListPodBillingResponse", ("gpu", "cpu", "disk"), ["gone", *self.fake.pods]),
            "serverless": (
                "serverlessId",
                "ListServerlessBillingResponse",
                ("gpu", "cpu", "disk", "fee"),
                [*self.fake.endpoints],
            ),
            "network-volumes": (
                "networkVolumeId",
                "ListNetworkVolumeBillingResponse",
                ("standard", "highPerformance"),
                ["vol1"],
            ),
        }[kind]
        times = {"startTime": "2026-11-24T00:00:00Z", "endTime": "2026-11-25T00:00:00Z"}
        amounts = {f"{part}Amount": 0.5 for part in parts} | {"totalAmount": 0.5 * len(parts)}
        records = [{**times, **amounts, key: one} for one in ids for _ in range(2)]
        unique = f"unique{key[0].upper()}{key[1:-2]}Count"
        meta = {"query": {**times, "bucketSize": query["bucketSize"]}, "recordCount": len(records), unique: len(ids)}
        body = {"records": records, "metadata": {**meta, "totals": amounts}}
        self.fake.invalid += [f"answer {answer}: {text}" for text in schema.problems(answer, body)]
        self._send(200, body)

    def _volumes(self, method: str, words: list[str], body: Any) -> None:
        fake = self.fake
        if words and words[0] not in fake.volumes:
            self._problem(404, "Not Found", "volume not found")
            return
        if method == "GET":
            self._send(200, fake.volumes[words[0]] if words else {"networkVolumes": [*fake.volumes.values()]})
            return
        what = fake.volume_changes.popleft() if fake.volume_changes else "ok"
        if what == "500-before":
            self._problem(500, "Internal Server Error", "upstream failed")
            return
        if what == "409":
            self._problem(409, "Conflict", "a pod uses this volume")
            return
        if method == "POST":
            volume_id = f"vol{len(fake.volumes) + 1}"
            fake.volumes[volume_id] = {"type": "STANDARD", **body, "id": volume_id}
        else:
            volume_id = words[0]
            del fake.volumes[volume_id]
        if what == "drop-after":
            self._drop()
        elif method == "POST":
            self._send(201, fake.volumes[volume_id])
        else:
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
