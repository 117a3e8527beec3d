"""RunPod's proxy to the pods' ports, below /proxy/ID/PORT/."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from fakes.runpod.answers import Answers


class Proxy(Answers):
    """The way into the pods."""

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
        if port == "8188":
            pod.used = time.monotonic()
        if port == "8188" and fake.comfyui:
            self._pass_on(method, fake.comfyui + what, text)
        elif port == "19123" and fake.status_page:
            self._pass_on(method, fake.status_page + what, text)
        elif port == "8188" and what == "/queue":
            jobs = [[number] for number in range(fake.queue)]
            self._send(200, {"queue_running": jobs[:1], "queue_pending": jobs[1:]})
        elif port in ("8000", "8020") and what == "/health":
            self._send(200, {"in_flight": min(fake.texts, 1), "waiting": max(0, fake.texts - 1)})
        elif what == "/readyz":
            fake.readiness[pod_id] = fake.readiness.get(pod_id, 0) + 1
            self._send(200 if fake.readiness[pod_id] > fake.ready_after else 503, {})
        elif what == "/healthz":
            self._send(200, {})
        else:
            self._send(200, {"state": {"headline": "Starting"}, "models": {"bytes_done": 5, "bytes_total": 10}})

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
