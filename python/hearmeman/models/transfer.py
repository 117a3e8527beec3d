"""Brings bytes of one file into its staged copy: a range over one HTTP connection, or all that is missing through Xet."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import HTTPError as TransportError

from hearmeman.log import log
from hearmeman.models import xet
from hearmeman.models.content import Content
from hearmeman.models.errors import ContradictionError, NoRangesError, NotServedError, TransientError, moved
from hearmeman.models.http import Answer, Http, brief
from hearmeman.models.pace import WINDOW_SECONDS, Pace
from hearmeman.models.phase import Event, Phase
from hearmeman.models.remote import Remote
from hearmeman.models.spans import MIB, Part

if TYPE_CHECKING:
    from hearmeman.models.download import Download

READ = MIB // 4
"""Most bytes that are read at a time."""
LONGEST_PATIENCE = 120.0
"""A connection that took over from slow ones is judged as slow after this time at the latest."""


class Lanes:
    """The connections of one file, how quick they are, and which of them is relieved of its range; under the file's lock."""

    def __init__(self, content: Content, clock: Callable[[], float]) -> None:
        self.content, self.clock = content, clock
        self._paces: dict[Part, Pace] = {}
        self._answers: dict[Part, Answer] = {}
        self._ended: deque[float] = deque(maxlen=16)

    def has_work(self) -> bool:
        """Whether one more connection would find something to bring."""
        spans = self.content.spans
        return bool(spans.free) or spans.splittable or self._slow() is not None

    def take(self, connections: int, whole: bool) -> Part | None:
        """Give a range to a connection: a free one, what is left of a slow one's, or half of a long one."""
        spans = self.content.spans
        slow = None if spans.free or whole else self._slow()
        if slow is None:
            part = spans.take(connections, whole)
            patience = WINDOW_SECONDS
        else:
            part, patience = spans.take_over(slow), min(self._paces[slow].patience * 2, LONGEST_PATIENCE)
            log(
                "model.slowed",
                file=self.content.path.name,
                bytes=part.left,
                per_second=round(self._paces[slow].rate or 0),
            )
            # It may be waiting for a byte; this wakes it.
            with contextlib.suppress(ValueError, RuntimeError, OSError):
                self._answers[slow].response.shutdown()
        if part is not None:
            self._paces[part] = Pace(part.pos, self.clock(), patience)
        return part

    def answered(self, part: Part, answer: Answer) -> None:
        """Note which answer brings a range: only such a range can be taken over."""
        self._answers[part] = answer

    def leave(self, part: Part) -> None:
        """Take a range back from its connection."""
        pace = self._paces.pop(part, None)
        if pace is not None and (rate := pace.average(part.pos, self.clock())) is not None:
            self._ended.append(rate)
        self._answers.pop(part, None)
        # Who began again has taken it already.
        if part in self.content.spans.active:
            self.content.spans.give_back(part)

    def is_slow(self, part: Part) -> bool:
        """Whether another connection should bring the rest of a range."""
        pace = self._paces[part]
        pace.look(part.pos, self.clock())
        others = [*self._ended, *(p.rate for one, p in self._paces.items() if one is not part and p.rate is not None)]
        return part.left > 0 and pace.is_slow(part.left, others)

    def _slow(self) -> Part | None:
        slow = [part for part in self._answers if self.is_slow(part)]
        return max(slow, key=lambda part: part.left, default=None)


def over_http(download: Download, http: Http, remote: Remote, attempt: int) -> None:
    """Fetch one range over one connection.

    Raises:
        TransientError: what did not arrive may arrive when asked for again.
    """
    lanes, content = download.lanes, download.content
    with download.lock:
        if attempt != download.state.attempt:
            return
        whole = not download.ranges or (download.state.phase is Phase.STARTING and not content.size)
        part = lanes.take(download.tools.settings.download_connections_per_file, whole)
    if part is None:
        return
    try:
        answer = http.open(remote, (part.pos, part.end), download.file.to, content.etag)
        at_end = False
        try:
            with download.lock:
                if not _settle(download, answer, part, remote, attempt):
                    return
            at_end = _receive(download, answer, part, remote, attempt)
        except TransportError as error:
            if part.left > 0:
                raise TransientError(f"{download.file.source}: {brief(error)}") from error
        finally:
            if at_end:
                answer.response.release_conn()
            else:
                answer.response.close()
    finally:
        with download.lock:
            lanes.leave(part)


def through_xet(download: Download, what: Mapping[str, Any], attempt: int) -> None:
    """Fetch all that is missing through Xet; when that has failed often enough, plain HTTP goes on.

    Raises:
        TransientError: it failed, or stood still.
    """
    content, lock = download.content, download.lock
    while True:
        with lock:
            part = content.spans.take(1, whole=True) if attempt == download.state.attempt else None
        if part is None:
            return
        began = part.pos

        def arrived(position: int, part: Part = part) -> bool:
            download.retry.progressed()
            return not download.over and content.reach(part, position, attempt)

        try:
            stall = min(download.retry.timeout / 3, xet.STALL_SECONDS)
            xet.fetch(what, content.path, (part.pos, part.end), arrived, stall)
        except TransientError as error:
            download.xet_tries -= 1
            left = download.xet_tries
            log("model.xet_failed", file=download.file.to, why=error, arrived=part.pos - began, tries_left=left)
            raise
        finally:
            with lock:
                download.lanes.leave(part)


def _settle(download: Download, answer: Answer, part: Part, remote: Remote, attempt: int) -> bool:
    """Take in what the head of an answer says; False when it comes too late. The lock is held."""
    file, content = download.file, download.content
    if attempt != download.state.attempt or download.over:
        return False
    if content.etag and answer.etag != content.etag:
        download.change(attempt, file.size, "")
    if content.size and answer.total is not None and answer.total != content.size:
        what = f"sends {answer.total} bytes, {content.size} were reported"
        other = NotServedError(what) if remote.stated or remote.cached else moved(file.to, file.source, what)
        raise ContradictionError(other)
    if not answer.ranges and (part.pos or download.connections > 1 or content.done):
        raise NoRangesError(NotServedError(f"{file.source} does not serve ranges"))
    if not download.move(Event.ANSWERED, attempt):
        return False
    content.tag(answer.etag)
    if not content.size and answer.total is not None:
        content.resize(answer.total)
    download.ranges = answer.ranges
    if answer.ranges:
        download.lanes.answered(part, answer)
    else:
        content.spans.only(part)
    return True


def _receive(download: Download, answer: Answer, part: Part, remote: Remote, attempt: int) -> bool:
    """Write what arrives; the answer says whether the body was read to its end."""
    content, arrived = download.content, 0
    while True:
        with download.lock:
            left = part.left if attempt == download.state.attempt and not download.over else 0
        if left <= 0:
            return answer.length is not None and arrived == answer.length
        # Whatever is there: a slow connection would take minutes to fill a buffer.
        data = answer.response.read1(min(READ, left))
        if not data:
            break
        if not content.write(part, data, attempt):
            return False
        arrived += len(data)
        download.progressed(remote, part.pos)
    with download.lock:
        if not content.size and answer.length is None:
            # No one stated a size, and the server ended the body properly.
            content.resize(part.pos)
            return True
    raise TransientError(f"{download.file.source}: the connection ended {left} bytes early")
