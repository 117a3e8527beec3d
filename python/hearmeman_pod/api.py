"""RunPod's REST API v2: one method a request, errors in RunPod's words, and never a second try of what may have worked."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from hearmeman_pod.errors import ApiError, NoJsonError, PodError, SilentError, UnknownOutcomeError, UsageError

BASE = "https://api.runpod.io"
_TRIES = 5
_LONGEST_PAUSE = 60.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Api:
    """The API with one account's key, which goes into a header and nowhere else."""

    def __init__(
        self,
        key: str,
        base: str = BASE,
        timeout: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        parts = urlsplit(base)
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise UsageError(f"RUNPOD_API_URL={base} is not https: the key would be readable on the way")
        if not key:
            raise UsageError(
                "no API key: set RUNPOD_API_KEY, or run `runpodctl config`. "
                "`hearmeman-pod plan` works without one, except for prices"
            )
        self._sleep = sleep
        self._now = now
        self._client = httpx2.Client(
            base_url=base.rstrip("/"),
            headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
            timeout=httpx2.Timeout(timeout, connect=10.0),
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, action: str, **parameters: str) -> Any:
        """Read; tried again when RunPod is busy or out of reach.

        Raises:
            ApiError: RunPod refused.
            PodError: it could not be reached, or answered with something else than JSON.
        """
        for number in range(1, _TRIES + 1):
            last = number == _TRIES
            try:
                answer = self._client.get(path, params=parameters)
            except httpx2.TransportError as error:
                if last:
                    raise PodError(f"RunPod cannot be reached to {action}: {_why(error)}; check the network") from error
                self._sleep(min(2.0**number, _LONGEST_PAUSE))
                continue
            if not last and (answer.status_code == 429 or answer.status_code >= 500):
                self._sleep(self._pause(answer, number))
                continue
            return _content(answer, action)
        raise AssertionError("unreachable")

    def change(self, method: str, path: str, action: str, body: Mapping[str, Any] | None = None) -> Any:
        """Change something; tried again only when RunPod says that it did nothing (429).

        Raises:
            ApiError: RunPod refused, and nothing changed.
            UnknownOutcomeError: no answer, a server error, or something that is no answer of RunPod's: it may have been
                carried out.
        """
        for number in range(1, _TRIES + 1):
            try:
                answer = (
                    self._client.request(method, path, json=body)
                    if body is not None
                    else self._client.request(method, path)
                )
            except httpx2.ConnectError as error:
                raise PodError(f"RunPod cannot be reached to {action}: {_why(error)}; nothing was sent") from error
            except httpx2.TransportError as error:
                raise UnknownOutcomeError(
                    f"the connection broke while RunPod was asked to {action}: {_why(error)}"
                ) from error
            if answer.status_code == 429 and number < _TRIES:
                self._sleep(self._pause(answer, number))
                continue
            if answer.status_code >= 500:
                raise UnknownOutcomeError(
                    f"RunPod answered {answer.status_code} when asked to {action}: {_words(answer)}"
                )
            try:
                return _content(answer, action)
            except NoJsonError as error:
                raise UnknownOutcomeError(str(error)) from error
        raise AssertionError("unreachable")

    def events(
        self, path: str, parameters: Mapping[str, str], last_id: str = "", silence: float = 60.0
    ) -> Iterator[tuple[str, str]]:
        """Read a stream of server-sent events as (id, data) until it ends, breaks, or is silent for `silence` seconds.

        Raises:
            ApiError: RunPod refused.
            SilentError: nothing came for so long.
            PodError: it could not be reached, or the stream broke.
        """
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        patience = httpx2.Timeout(30.0, read=silence)
        try:
            with self._client.stream("GET", path, params=dict(parameters), headers=headers, timeout=patience) as answer:
                if answer.status_code != 200:
                    answer.read()
                    _content(answer, "read the logs")
                for event in httpx2.EventSource(answer):
                    yield event.id, event.data
        except httpx2.ReadTimeout as error:
            raise SilentError(f"RunPod's log says nothing for {silence:g} s") from error
        except httpx2.TransportError as error:
            raise PodError(f"the log stream broke: {_why(error)}") from error

    def _pause(self, answer: httpx2.Response, number: int) -> float:
        stated = answer.headers.get("Retry-After", "")
        if stated.isdigit():
            return min(float(stated), _LONGEST_PAUSE)
        when = email.utils.parsedate_to_datetime(stated).timestamp() if _is_date(stated) else None
        return min(max(when - self._now(), 0.0) if when else 2.0**number, _LONGEST_PAUSE)


class Answer(dict[str, Any]):
    """A JSON object of RunPod's; to ask it for what it lacks raises a PodError in place of a KeyError."""

    def __missing__(self, key: str) -> Any:
        raise PodError(
            f"RunPod's answer lacks `{key}`: the API has changed, or something stands between this machine and it, such as a "
            "proxy"
        )


def pod_path(pod_id: str, *more: str) -> str:
    """The path of a pod, whatever its id holds."""
    return "/".join(["/v2/pods", quote(pod_id, safe=""), *more])


def _is_date(text: str) -> bool:
    try:
        email.utils.parsedate_to_datetime(text)
    except ValueError:
        return False
    return True


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _words(answer: httpx2.Response) -> str:
    try:
        body = answer.json()
        return str(body.get("detail") or body.get("title") or "no reason given")
    except (ValueError, AttributeError):
        return "no reason given"


def _content(answer: httpx2.Response, action: str) -> Any:
    if answer.status_code == 204:
        return None
    try:
        body = answer.json(object_hook=Answer)
    except ValueError:
        body = None
    if answer.status_code >= 300:
        found = body if isinstance(body, dict) else {}
        errors = found.get("errors")
        title = str(found.get("title") or answer.reason_phrase)
        detail = str(found.get("detail") or ("" if found else "the answer was no JSON"))
        raise ApiError(
            action, answer.status_code, title, detail, tuple(map(str, errors)) if isinstance(errors, list) else ()
        )
    if not isinstance(body, dict):
        raise NoJsonError(
            f"what answered when RunPod was asked to {action} is not RunPod: it sent no JSON object. Something "
            "stands between "
            "this machine and the API, such as a login page or a proxy"
        )
    return body
