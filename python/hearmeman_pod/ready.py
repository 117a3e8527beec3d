"""Waits until a pod is ready, and says on the way what it is doing; asks RunPod for its state and the pod for its own."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from hearmeman import terminal
from hearmeman_pod.api import Api, pod_path
from hearmeman_pod.errors import ApiError, PodError
from hearmeman_pod.logs import system_lines

PROXY = "https://{id}-{port}.proxy.runpod.net"
STATUS_PORT = 19123
_PAUSE = 5.0
_LOG_PAUSE = 30.0
"""Between two looks at RunPod's log of a pod that does not start."""


class NotReadyError(PodError):
    """The pod did not become ready; the message holds RunPod's words."""


class TooDearError(PodError):
    """The pod costs more than was allowed."""


@dataclass(frozen=True)
class Inside:
    """How the pod itself is reached, through RunPod's proxy."""

    token: str = ""
    """ACCESS_TOKEN, if its value is known here."""
    proxy: str = PROXY
    """Address with {id} and {port}."""

    def url(self, pod_id: str, port: int, path: str = "") -> str:
        """The address of a port of the pod."""
        return self.proxy.format(id=pod_id, port=port) + path

    def get(self, pod_id: str, port: int, path: str) -> tuple[int, Any]:
        """Ask the pod: (HTTP status, JSON or None); status 0 when there was no answer."""
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        try:
            answer = _client().get(self.url(pod_id, port, path), headers=headers)
        except httpx2.TransportError:
            return 0, None
        try:
            return answer.status_code, answer.json()
        except ValueError:
            return answer.status_code, None


@functools.cache
def _client() -> httpx2.Client:
    # One for all questions: making the certificates' context takes longer than a question.
    return httpx2.Client(timeout=10.0, follow_redirects=False)


def wait(
    api: Api,
    pod: Mapping[str, Any],
    inside: Inside,
    say: Callable[[str], None],
    seconds: float,
    max_price: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Mapping[str, Any]:
    """Wait until ComfyUI can be worked with; the pod as it is then.

    Raises:
        TooDearError: it costs more than `max_price`.
        NotReadyError: it failed, was ended, or was not ready within `seconds`.
    """
    end, said, looked = clock() + seconds, "", clock()
    while True:
        text, ready = "", False
        try:
            found = api.get(pod_path(pod["id"]), "read the pod's state")
            pod, status, _ = found, found["status"], found["cost"]
        except ApiError as error:
            if error.status == 404:
                raise NotReadyError(f"pod {pod['id']} is gone: RunPod or somebody else ended it") from error
            if error.status != 429 and error.status < 500:
                raise
            text = f"RunPod's state of the pod cannot be read, it will be retried: {error}"
        except PodError as error:
            # The network here may come back; the pod goes on all the same.
            text = f"RunPod's state of the pod cannot be read, it will be retried: {error}"
        else:
            check_price(pod, max_price)
            if status in ("ERROR", "EXITED", "TERMINATED"):
                raise NotReadyError(f"pod {pod['id']} is {status}. {_log(api, pod['id'])}")
            text, ready = (
                _inside(inside, pod["id"])
                if status == "RUNNING"
                else (_WORDS.get(status, f"RunPod says {status}"), False)
            )
            if status == "STARTING" and clock() - looked >= _LOG_PAUSE:
                looked = clock()
                if why := never_pulled(_system(api, pod["id"])):
                    raise NotReadyError(f"pod {pod['id']} cannot start: {why}. {_log(api, pod['id'])}")
        if text != said:
            say(text)
            said = text
        if ready:
            return pod
        if clock() >= end:
            raise NotReadyError(
                f"pod {pod['id']} was not ready within {seconds / 60:.0f} minutes; the last that was seen: {said}. "
                f"{_log(api, pod['id'])}"
            )
        sleep(_PAUSE)


_WORDS = {
    "PROVISIONING": "RunPod is looking for a machine",
    "STARTING": "the machine is pulling and starting the image",
}
_NEVER = (
    (
        re.compile(r"unauthorized|authentication required|access[^\n]*denied|\bdenied\b|forbidden", re.IGNORECASE),
        "the registry requires a login for this image: store one in RunPod's console (Settings, Container "
        "Registry Auth) and give its id with --registry, or make the package public",
    ),
    (
        re.compile(r"manifest unknown|name unknown|repository does not exist|not found: manifest", re.IGNORECASE),
        "the registry has no image of this digest: push it again, or name another with --image",
    ),
)
"""What a machine says of a pull that trying again does not fix, and what it means."""


def never_pulled(lines: Sequence[str]) -> str:
    """Say why the image will never be pulled, by RunPod's own log; empty where it may be."""
    pulls = [line for line in lines if re.search("pull|manifest|registry|image", line, re.IGNORECASE)]
    return next((means for pattern, means in _NEVER if any(pattern.search(line) for line in pulls)), "")


def check_price(pod: Mapping[str, Any], max_price: float | None) -> None:
    """Raise TooDearError where a pod costs more than `max_price` dollars an hour."""
    if max_price is not None and pod["cost"] > max_price:
        raise TooDearError(f"pod {pod['id']} costs ${pod['cost']:.3f} an hour, more than --max-price {max_price:g}")


def _inside(inside: Inside, pod_id: str) -> tuple[str, bool]:
    code, _ = inside.get(pod_id, STATUS_PORT, "/readyz")
    if code == 200:
        return "ready", True
    if code in (401, 403):
        alive, _ = inside.get(pod_id, STATUS_PORT, "/healthz")
        words = (
            ("the pod runs; set ACCESS_TOKEN here as well to see how far it is")
            if alive == 200
            else "the pod is booting"
        )
        return words, alive == 200
    seen, status = inside.get(pod_id, STATUS_PORT, "/status")
    if seen != 200 or not isinstance(status, dict):
        return "the pod is booting" if code in (0, 502, 503, 504) else f"the pod is booting (HTTP {code})", False
    text = f"the pod says: {(status.get('state') or {}).get('headline') or 'starting'}"
    models = status.get("models") or {}
    if total := models.get("bytes_total"):
        text += f"; models {100 * models.get('bytes_done', 0) // total} % of {terminal.size(total)}"
    return text, False


def _log(api: Api, pod_id: str) -> str:
    lines = _system(api, pod_id)
    means = never_pulled(lines)
    said = "\n".join(f"  {line}" for line in lines) or "  nothing"
    return f"RunPod's own log says:\n{said}" + (f"\nThis means: {means}." if means else "")


def _system(api: Api, pod_id: str) -> list[str]:
    try:
        return system_lines(api, pod_id)
    except PodError as error:
        return [f"it cannot be read: {error}"]
