"""Stops this pod by RunPod's REST API, with the key that RunPod gives to this pod alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import urllib3

from hearmeman.errors import HearmemanError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ADVICE = {
    401: "the pod's RUNPOD_API_KEY is not accepted: end the pod in RunPod's console",
    403: "the pod's RUNPOD_API_KEY may not do this: end the pod in RunPod's console",
    404: "RunPod does not know this pod: end it in RunPod's console",
    409: "RunPod does not allow it now; a pod with a network volume can only be terminated: set IDLE_ACTION=terminate",
}


class StopError(HearmemanError):
    """RunPod did not stop the pod."""


def act(base: str, pod: str, key: str, action: str) -> None:
    """Ask for `action`, which is stop or terminate.

    Raises:
        StopError: it was refused, or RunPod cannot be reached.
    """
    parts = urlsplit(base)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise StopError(f"RUNPOD_API_URL={base} is not https: the key would be readable on the way")
    http = urllib3.PoolManager(timeout=urllib3.Timeout(30.0), retries=False)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Accept": "application/json"}
    url = f"{base.rstrip('/')}/v2/pods/{quote(pod, safe='')}/action"
    try:
        answer = http.request("POST", url, body=json.dumps({"action": action}), headers=headers, redirect=False)
    except urllib3.exceptions.HTTPError as error:
        raise StopError(f"RunPod cannot be reached: {type(error).__name__}") from error
    finally:
        http.clear()
    if answer.status not in (200, 204):
        raise StopError(
            f"RunPod answered {answer.status}{_words(answer.data)}: {_ADVICE.get(answer.status, 'it will be retried')}"
        )


def _words(content: bytes) -> str:
    try:
        found = json.loads(content)
    except ValueError:
        return ""
    said = found.get("detail") or found.get("title") if isinstance(found, Mapping) else ""
    return f" ({said})" if said else ""
