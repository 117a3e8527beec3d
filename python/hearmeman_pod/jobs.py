"""Jobs of a Serverless endpoint, and what they answer, saved as files."""

from __future__ import annotations

import base64
import binascii
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from hearmeman_pod.api import Api
from hearmeman_pod.errors import PodError

JOBS = "https://api.runpod.ai"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
PAUSE = 2.0
"""Seconds between two looks at a job."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Jobs:
    """One endpoint's queue."""

    def __init__(self, api: Api, endpoint: str) -> None:
        self._api, self._path = api, f"/v2/{quote(endpoint, safe='')}"

    def submit(self, content: Mapping[str, Any]) -> str:
        """Queue a job and give its id.

        Raises:
            UnknownOutcomeError: no answer; it may be queued.
            PodError: it was refused.
        """
        return str(self._api.change("POST", f"{self._path}/run", "queue the job", {"input": content})["id"])

    def state(self, job: str) -> dict[str, Any]:
        """Ask for a job: status, and output or error when it has ended."""
        found: dict[str, Any] = self._api.get(f"{self._path}/status/{quote(job, safe='')}", f"look at job {job}")
        return found

    def cancel(self, job: str) -> None:
        """Take a job out of the queue, or end it."""
        self._api.change("POST", f"{self._path}/cancel/{quote(job, safe='')}", f"cancel job {job}")

    def retry(self, job: str) -> None:
        """Queue a job again that failed or timed out; its id stays, and its old result is gone."""
        self._api.change("POST", f"{self._path}/retry/{quote(job, safe='')}", f"queue job {job} again")

    def purge(self) -> int:
        """Take out of the queue all jobs that no worker has begun; how many there were."""
        return int(self._api.change("POST", f"{self._path}/purge-queue", "empty the queue").get("removed", 0))

    def health(self) -> dict[str, Any]:
        """Count jobs and workers by their state."""
        found: dict[str, Any] = self._api.get(f"{self._path}/health", "look at the queue")
        return found


def reason(state: Mapping[str, Any]) -> str:
    """Say why a job did not complete; empty if it did."""
    output = state.get("output")
    said = state.get("error") or (output.get("error") if isinstance(output, Mapping) else None)
    if state.get("status") == "COMPLETED" and not said:
        return ""
    return str(
        said
        or {"TIMED_OUT": "it took longer than the endpoint allows"}.get(str(state.get("status")), "no reason given")
    )


def save(output: Any, folder: Path, client: httpx2.Client) -> list[str]:
    """Write the files of a job's answer into `folder`, each whole or not at all; their names.

    Raises:
        PodError: one cannot be decoded, fetched or written.
    """
    names: list[str] = []
    for entry in _files(output):
        name = PurePosixPath(str(entry.get("filename", "")).replace("\\", "/")).name.lstrip(".") or "output"
        stem, suffix, number = Path(name).stem, Path(name).suffix, 1
        while name in names:
            number += 1
            name = f"{stem}-{number}{suffix}"
        beside = folder / f".{name}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                for block in _content(entry, client):
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(folder / name)
        except (OSError, httpx2.HTTPError, binascii.Error) as error:
            # Not the address: it is signed, and whoever has it has the file.
            raise PodError(
                f"{name} could not be saved in {folder}: {getattr(error, 'strerror', None) or type(error).__name__}"
            ) from error
        finally:
            beside.unlink(missing_ok=True)
        names.append(name)
    return names


def _files(output: Any) -> Iterator[Mapping[str, Any]]:
    for entries in output.values() if isinstance(output, Mapping) else ():
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, Mapping) and entry.get("type") in ("base64", "s3_url"):
                yield entry


def _content(entry: Mapping[str, Any], client: httpx2.Client) -> Iterator[bytes]:
    data = str(entry.get("data", ""))
    if entry["type"] == "base64":
        yield base64.b64decode(data.partition(",")[2] if data.startswith("data:") else data, validate=True)
        return
    parts = urlsplit(data)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise PodError("a job's output has an address that is not https: it is not fetched")
    with client.stream("GET", data) as answer:
        answer.raise_for_status()
        yield from answer.iter_bytes()


def wait(
    jobs: Jobs, job: str, say: Callable[[str], None], seconds: float, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Wait until a job has ended, and say what it is doing; its state.

    Raises:
        PodError: it did not end in time; it goes on.
    """
    end, last, newest = time.monotonic() + seconds, "", 0
    while True:
        state = jobs.state(job)
        if state.get("status") in ENDED:
            return state
        number, doing = _progress(state)
        # Reports may overtake each other on their way: an older one says nothing new.
        if number >= newest and doing != last:
            newest, last = number, doing
            say(f"job {job}: {doing}")
        if time.monotonic() > end:
            raise PodError(
                f"job {job} has not ended in {seconds / 60:g} minutes and is still running: `hearmeman-pod "
                "endpoint collect` waits for it again, `endpoint cancel` ends it"
            )
        sleep(PAUSE)


def _progress(state: Mapping[str, Any]) -> tuple[int, str]:
    """What a job that has not ended is doing, and the number of its report."""
    told = state.get("output")
    if state.get("status") == "IN_QUEUE":
        return 0, "in the queue"
    if not isinstance(told, Mapping) or not isinstance(told.get("number"), int):
        return 0, "running" if state.get("status") == "IN_PROGRESS" else str(state.get("status")).lower()
    words = [str(told.get("state", "running"))]
    if node := told.get("class_type") or told.get("node"):
        words.append(str(node))
    if told.get("steps"):
        words.append(f"{told.get('step', 0)}/{told['steps']}")
    return told["number"], " ".join(words)
