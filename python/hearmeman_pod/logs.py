"""A pod's logs as RunPod streams them; a stream that breaks goes on after the last line that was read."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

from hearmeman_pod.api import Api, pod_path
from hearmeman_pod.errors import ApiError, PodError, SilentError

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
_TRIES = 8


def follow(
    api: Api,
    pod_id: str,
    tail: int = 100,
    source: str = "",
    forever: bool = True,
    sleep: Callable[[float], None] = time.sleep,
    silence: float = 60.0,
) -> Iterator[tuple[str, str, str]]:
    """Give (time, source, line) of a pod's log, oldest first; `forever` goes on until it is interrupted.

    Raises:
        PodError: RunPod cannot be reached any more.
    """
    parameters = {"tail": str(tail)} | ({"source": source} if source else {})
    last, failures = "", 0
    while True:
        try:
            for event, data in api.events(pod_path(pod_id, "logs"), parameters, last, silence):
                failures = 0
                last = event or last
                found = _line(data)
                if found:
                    yield found
            if not forever:
                return
        except ApiError:
            raise
        except SilentError:
            # RunPod keeps the stream open: silence is the end of what there is to read, and no failure.
            if not forever:
                return
        except PodError:
            failures += 1
            if not forever or failures >= _TRIES:
                raise
        sleep(min(2.0**failures, 30.0))


def system_lines(api: Api, pod_id: str, count: int = 20) -> list[str]:
    """The last lines that RunPod itself wrote about the pod."""
    lines: list[str] = []
    try:
        for when, _, line in follow(api, pod_id, count, "system", forever=False, silence=5.0):
            lines.append(f"{when} {line}")
            if len(lines) >= count:
                break
    except ApiError:
        raise
    except PodError:
        if not lines:
            raise
    return lines


def _line(data: str) -> tuple[str, str, str] | None:
    try:
        found = json.loads(data)
        return str(found["ts"]), str(found["source"]), _CONTROL.sub("", str(found["line"]))
    except (ValueError, KeyError, TypeError):
        return None
