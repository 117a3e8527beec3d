"""One file on its way: address, ranges over several connections, patience with servers, and the verdict at the end."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from urllib3.exceptions import HTTPError as TransportError

from hearmeman.log import log
from hearmeman.models import xet
from hearmeman.models.catalogue import File
from hearmeman.models.content import Content
from hearmeman.models.errors import (
    CorruptError,
    ExpiredError,
    FetchError,
    GatedError,
    TransientError,
    disk_error,
    moved,
    stalled,
    twice_wrong,
)
from hearmeman.models.hashing import Front, follow
from hearmeman.models.http import Answer, Http, brief
from hearmeman.models.retry import Retry
from hearmeman.models.sources import Remote, check_offer
from hearmeman.models.spans import MIB, Part
from hearmeman.models.verify import wrong_with

READ = MIB // 4
"""Bytes that are read at a time: what a kill loses of each connection, and what a slow one waits for."""

State = Literal["waiting", "starting", "fetching", "checking", "present", "failed"]


class Download:
    """One file, shared by the threads that work on it; `lock` guards all that changes.

    `resolve` asks for the address, at the cache too if it is told so; `accept` gives the verified file its place.
    """

    def __init__(
        self,
        file: File,
        staged: Path,
        journal: Path,
        resolve: Callable[[File, bool], Remote],
        accept: Callable[[File, str], None],
        lock: threading.Condition,
        most_connections: int,
        timeout: float,
        xet_tries: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.file, self.lock = file, lock
        self.content = Content(staged, journal, lock)
        self.most_connections = most_connections
        self.state: State = "waiting"
        self.error: FetchError | None = None
        self.connections = 0
        self.remote: Remote | None = None
        self._resolve, self._accept = resolve, accept
        self._retry = Retry(timeout, clock)
        self._ranges = True
        self._worked, self._joined = False, False
        self._restarts = 0
        self._xet_tries = xet_tries

    @property
    def total(self) -> int:
        """Bytes of the whole file, as far as anyone knows."""
        return self.content.size or self.file.expected

    @property
    def done(self) -> int:
        """Bytes that have arrived."""
        return self.total if self.state == "present" else self.content.done

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("present", "failed")

    def pause(self) -> None:
        """Note what has arrived, for the next start."""
        if not self.over:
            self.content.note(force=True)

    def wants_connection(self, spare: bool = False) -> bool:
        """Tell whether one more connection would be of use now; the lock is held.

        `spare` ones are those that no other file wants: they may go beyond what one file gets else.
        """
        if self.over or not self._retry.may_try:
            return False
        if self.state == "waiting":
            return self.connections == 0
        if self.state != "fetching" or self.remote is None or self.content.spans.complete:
            return False
        if not self._ranges:
            return self.connections == 0
        return self.connections < self.most_connections * (2 if spare else 1) and self.content.takes_another

    def join(self) -> None:
        """Announce a connection; the lock is held, and `work` follows."""
        self.connections += 1
        if self.state == "waiting":
            self.state = "starting"
            if not self._joined:
                # Time without progress counts from here: files wait for their turn.
                self._joined = True
                self._retry.progressed()

    def work(self, http: Http) -> None:
        """Fetch one range, after asking the source for the address if that is not known."""
        remote = self.remote
        try:
            with self._ending_with_it():
                if remote is None:
                    remote = self._start()
                if remote.xet is not None and self._xet_tries and self.total >= xet.SMALLEST:
                    self._fetch_xet(remote.xet)
                self._fetch(http, remote)
        except TransientError as error:
            self._try_again(str(error), error.wait)
        except ExpiredError as error:
            self._renew(remote, str(error))
        finally:
            with self.lock:
                self.connections -= 1
                if self.state == "fetching" and self.remote is None and self.connections == 0:
                    self.state = "waiting"
                # This thread looks for more by itself; the others need not be woken for each range.
                if self.connections == 0 or self.over:
                    self.lock.notify_all()
            self.content.more.set()

    @contextlib.contextmanager
    def _ending_with_it(self) -> Iterator[None]:
        """Let what cannot be tried again end this file."""
        try:
            yield
        except FetchError as error:
            self._fail(error)
        except OSError as error:
            self._fail(disk_error(self.file.to, str(self.content.path), self.total - self.done, error))
        except (TransientError, ExpiredError):
            raise
        except Exception as error:
            # A mistake of ours must end this file, not hang the fetch.
            self._fail(FetchError(f"{type(error).__name__}: {error}: report this"))
            raise

    def _start(self) -> Remote:
        # What comes wrong from the cache is fetched again from its source.
        remote = self._resolve(self.file, not self._restarts)
        check_offer(self.file, remote)
        with self.lock:
            if not self.content.opened:
                size = self.file.size or remote.size
                if self.content.open(size, self.file.sha256 or remote.sha256 or ""):
                    log("model.resumed", file=self.file.to, have=self.content.done, of=size)
                threading.Thread(target=self._check, name=f"hash {self.file.id}", daemon=True).start()
            self.remote, self._worked = remote, False
        return remote

    def _take(self) -> tuple[Part | None, int]:
        with self.lock:
            if not self._ranges and self.content.done:
                self.content.begin_again()
            probing = self.state == "starting" and not self.content.size
            part = self.content.spans.take(self.most_connections, whole=probing or not self._ranges)
            return part, self.content.generation

    def _fetch(self, http: Http, remote: Remote) -> None:
        """Fetch one range over one connection."""
        part, generation = self._take()
        if part is None:
            return
        try:
            answer = http.open(remote.url, remote.headers, (part.pos, part.end), self.file.to, self.content.etag)
            whole = False
            try:
                with self.lock:
                    self._settle(answer, part)
                whole = self._receive(answer, part, generation)
            except TransportError as error:
                raise TransientError(f"{self.file.source}: {brief(error)}") from error
            finally:
                if whole:
                    answer.response.release_conn()
                else:
                    answer.response.close()
        finally:
            self.content.give_back(part)

    def _fetch_xet(self, what: Mapping[str, Any]) -> None:
        """Fetch all that is missing through Xet; when that has failed often enough, plain HTTP goes on."""
        while True:
            with self.lock:
                part, generation = self.content.spans.take(1, whole=True), self.content.generation
            if part is None:
                return
            began = part.pos

            def arrived(position: int, part: Part = part, generation: int = generation) -> bool:
                self._retry.progressed()
                return not self.over and self.content.reach(part, position, generation)

            try:
                stall = min(self._retry.timeout / 3, xet.STALL_SECONDS)
                xet.fetch(what, self.content.path, (part.pos, part.end), arrived, stall)
            except TransientError as error:
                self._xet_tries -= 1
                arrived_bytes, left = part.pos - began, self._xet_tries
                log("model.xet", file=self.file.to, why=str(error), arrived=arrived_bytes, tries_left=left)
                raise
            finally:
                self.content.give_back(part)

    def _settle(self, answer: Answer, part: Part) -> None:
        """Take in what the first bytes of an answer say; the lock is held."""
        content, source = self.content, self.file.source
        if content.etag and answer.etag != content.etag:
            content.become(self.file.size)
            self.state = "starting"
            raise TransientError(f"{source} changed while it was fetched: beginning again")
        if content.size and answer.total is not None and answer.total != content.size:
            raise moved(self.file.to, source, f"sends {answer.total} bytes, {content.size} were stated")
        content.tag(answer.etag)
        if not content.size and answer.total is not None:
            content.resize(answer.total)
        self._ranges = answer.ranges
        if not answer.ranges and (part.pos or self.connections > 1):
            # The others must be gone before the first byte is written again.
            content.begin_again()
            self.state = "starting"
            raise TransientError(f"{source} does not serve ranges: beginning again")
        if not answer.ranges:
            content.spans.only(part)
        if self.state != "fetching":
            self.state = "fetching"
            self.lock.notify_all()
        self._worked = True

    def _receive(self, answer: Answer, part: Part, generation: int) -> bool:
        """Write what arrives; the answer says whether the body was read to its end."""
        content, arrived = self.content, 0
        while True:
            with self.lock:
                left = part.left if generation == content.generation and not self.over else 0
            if left <= 0:
                return answer.length is not None and arrived == answer.length
            data = answer.response.read(min(READ, left))
            if not data:
                break
            if not content.write(part, data, generation):
                return False
            arrived += len(data)
            self._retry.progressed()
        with self.lock:
            if not content.size and answer.length is None:
                # No one stated a size, and the server ended the body properly.
                content.resize(part.pos)
                return True
        raise TransientError(f"{self.file.source}: the connection ended {left} bytes early")

    def _try_again(self, why: str, wait: float) -> None:
        with self.lock:
            if self._retry.exhausted:
                self._fail(stalled(self.file.to, self._retry.timeout, why))
                return
            if self.state == "starting":
                self.state = "waiting"
            pause = self._retry.failed(wait)
        if pause:
            log("model.retry", file=self.file.to, why=why, pause=pause)

    def _renew(self, used: Remote | None, why: str) -> None:
        with self.lock:
            if self.remote is not used:
                return
            if not self._worked:
                self._fail(GatedError(why))
                return
            self.remote = None
            if self.state == "starting":
                self.state = "waiting"
        log("model.renewed", file=self.file.to, why=why)

    def _fail(self, error: FetchError) -> None:
        with self.lock:
            if self.over:
                return
            if not str(error).startswith(self.file.to):
                error = type(error)(f"{self.file.to}: {self.file.source}: {error}")
            self.error, self.state = error, "failed"
            self.lock.notify_all()
        self.content.more.set()
        if not isinstance(error, CorruptError):
            self.content.note(force=True)

    def _check(self) -> None:
        """Hash the bytes in order as they arrive; when all have, accept the file or begin again."""
        content = self.content
        try:
            with self._ending_with_it():
                while (digest := follow(content.descriptor, self._look, content.more)) is not None:
                    if self._judge(digest):
                        break
        finally:
            with self.lock:
                # A connection may be about to write to the descriptor, whose number must not be used again yet.
                self.lock.wait_for(lambda: self.connections == 0)
                os.close(content.descriptor)

    def _look(self) -> Front | None:
        with self.lock:
            return None if self.over else self.content.front()

    def _judge(self, digest: str) -> bool:
        """Compare, and give the file its place; False when it is to be fetched again from its first byte."""
        content = self.content
        with self.lock:
            self.state = "checking"
            expected = content.journal.sha256
            blob = self.file.blob or (self.remote.blob if self.remote and not expected else None)
        wrong = wrong_with(content.path, digest, expected, blob)
        if not wrong:
            content.journal.close()
            self._accept(self.file, digest)
            with self.lock:
                self.state = "present"
                self.lock.notify_all()
            return True
        content.journal.forget()
        if self._restarts:
            size = content.path.stat().st_size
            content.path.unlink(missing_ok=True)
            raise twice_wrong(self.file.to, self.file.source, size, wrong)
        log("model.again", file=self.file.to, why=wrong)
        with self.lock:
            self._restarts += 1
            content.begin_again()
            self.remote = None
            self.state = "fetching" if self.connections else "waiting"
            self.lock.notify_all()
        return False
