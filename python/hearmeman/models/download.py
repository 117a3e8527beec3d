"""One file on its way: ranges over several connections, a journal that survives a kill, a hash that runs behind."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from urllib3.exceptions import HTTPError as TransportError

from hearmeman.log import log
from hearmeman.models import spans, xet
from hearmeman.models.catalogue import File
from hearmeman.models.errors import (
    CorruptError,
    DiskFullError,
    ExpiredError,
    FetchError,
    GatedError,
    MovedError,
    StalledError,
    TransientError,
)
from hearmeman.models.http import Answer, Http, brief
from hearmeman.models.journal import Journal
from hearmeman.models.sources import Remote
from hearmeman.models.spans import ENDLESS, Part, Spans
from hearmeman.models.verify import check_format, git_blob

BLOCK = spans.MIB
"""Bytes that are hashed at a time."""
READ = spans.MIB // 4
"""Bytes that are read at a time: what a kill loses of each connection, and what a slow one waits for."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0

State = Literal["waiting", "starting", "fetching", "checking", "present", "failed"]


class Download:
    """One file, shared by the threads that work on it; `lock` guards all that changes.

    `resolve` asks the source for the address, `accept` gives the verified file its place.
    """

    def __init__(
        self,
        file: File,
        staged: Path,
        journal: Path,
        resolve: Callable[[File], Remote],
        accept: Callable[[File, str], None],
        lock: threading.Condition,
        most_connections: int,
        timeout: float,
        xet_tries: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.file, self.staged = file, staged
        self.journal = Journal(journal)
        self.lock, self.clock, self.timeout = lock, clock, timeout
        self.most_connections = most_connections
        self.state: State = "waiting"
        self.error: FetchError | None = None
        self.connections = 0
        self.remote: Remote | None = None
        self._resolve, self._accept = resolve, accept
        self._spans: Spans | None = None
        self._descriptor = -1
        self._ranges = True
        self._etag = ""
        self._worked, self._joined = False, False
        self._not_before, self._pause = 0.0, 0.0
        self._progressed = clock()
        self._failed_at = -1.0
        self._restarts = 0
        self._xet_tries = xet_tries
        self._more = threading.Event()
        self._generation = 0

    @property
    def done(self) -> int:
        """Bytes that have arrived."""
        if self.state == "present":
            return self.total
        return self._spans.done if self._spans is not None else 0

    @property
    def total(self) -> int:
        """Bytes of the whole file, as far as anyone knows."""
        if self._spans is not None and self._spans.size != ENDLESS:
            return self._spans.size
        return self.file.expected

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("present", "failed")

    def pause(self) -> None:
        """Note what has arrived, for the next start."""
        if not self.over:
            self._note(force=True)

    def wants_connection(self) -> bool:
        """Tell whether one more connection would be of use now; the lock is held."""
        if self.over or self.clock() < self._not_before:
            return False
        if self.state == "waiting":
            return self.connections == 0
        if self.state != "fetching" or self.remote is None or self._spans is None or self._spans.complete:
            return False
        if not self._ranges:
            return self.connections == 0
        worth_splitting = any(part.left >= 2 * spans.SMALLEST for part in self._spans.active)
        return self.connections < self.most_connections and (bool(self._spans.free) or worth_splitting)

    def join(self) -> None:
        """Announce a connection; the lock is held, and `work` follows."""
        self.connections += 1
        if self.state == "waiting":
            self.state = "starting"
            if not self._joined:
                # Time without progress counts from here: files wait for their turn.
                self._joined, self._progressed = True, self.clock()

    def work(self, http: Http) -> None:
        """Fetch one range, after asking the source for the address if that is not known."""
        remote, part = self.remote, None
        try:
            if remote is None:
                remote = self._start()
            if remote.xet is not None and self._xet_tries and self.total >= xet.SMALLEST:
                self._fetch_xet(remote.xet)
            part = self._take()
            if part is not None:
                self._fetch(http, remote, part)
        except TransientError as error:
            self._try_again(str(error), error.wait)
        except ExpiredError as error:
            self._renew(remote, str(error))
        except FetchError as error:
            self._fail(error)
        except OSError as error:
            self._fail(self._disk_error(error))
        except Exception as error:
            # A mistake of ours must end this file, not hang the fetch.
            self._fail(FetchError(f"{type(error).__name__}: {error}: report this"))
            raise
        finally:
            with self.lock:
                self.connections -= 1
                if part is not None and self._spans is not None and part in self._spans.active:
                    self._spans.give_back(part)
                if self.state == "fetching" and self.remote is None and self.connections == 0:
                    self.state = "waiting"
                self.lock.notify_all()
            self._more.set()

    def _start(self) -> Remote:
        remote = self._resolve(self.file)
        size = self.file.size or remote.size
        if self.file.size and remote.size and remote.size != self.file.size:
            raise self._moved(f"offers {remote.size} bytes, the catalogue names {self.file.size}")
        for ours, theirs in ((self.file.sha256, remote.sha256), (self.file.blob, remote.blob)):
            if ours and theirs and ours != theirs:
                raise self._moved(f"offers the content {theirs[:12]}..., the catalogue names {ours[:12]}...")
        with self.lock:
            if self._spans is None:
                self._open(size, self.file.sha256 or remote.sha256 or "")
                threading.Thread(target=self._check, name=f"hash {self.file.id}", daemon=True).start()
            self.remote, self._worked = remote, False
        return remote

    def _open(self, size: int | None, sha256: str) -> None:
        self.staged.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.staged, os.O_RDWR | os.O_CREAT, 0o644)
        self.journal.name(size, sha256)
        if size is None:
            self.journal.size = size = self.journal.recall()
        missing = self.journal.read(os.fstat(self._descriptor).st_size)
        self._etag = "" if sha256 else self.journal.etag
        self._spans = Spans(size or ENDLESS, missing)
        os.ftruncate(self._descriptor, size or 0)
        if missing is not None:
            log("model.resumed", file=self.file.to, have=self._spans.done, of=size)

    def _take(self) -> Part | None:
        with self.lock:
            assert self._spans is not None
            probing = self.state == "starting"
            return self._spans.take(
                self.most_connections, whole=not self._ranges or (probing and not self.journal.size)
            )

    def _fetch(self, http: Http, remote: Remote, part: Part) -> None:
        answer = http.open(remote.url, remote.headers, (part.pos, part.end), self._etag)
        whole = False
        try:
            with self.lock:
                part = self._settle(answer, part)
                generation = self._generation
                self.lock.notify_all()
            whole = self._receive(answer, part, generation)
        except TransportError as error:
            raise TransientError(f"{self.file.source}: {brief(error)}") from error
        finally:
            if whole:
                answer.response.release_conn()
            else:
                answer.response.close()

    def _fetch_xet(self, what: Mapping[str, Any]) -> None:
        """Fetch all that is missing through Xet; when that has failed often enough, plain HTTP goes on."""
        assert self._spans is not None
        while True:
            with self.lock:
                part = self._spans.take(1, whole=True)
            if part is None:
                return
            began = part.pos

            def arrived(position: int, part: Part = part) -> bool:
                with self.lock:
                    part.pos, self._progressed = position, self.clock()
                    go_on = not self.over
                self._more.set()
                self._note()
                return go_on

            try:
                xet.fetch(what, self.staged, (part.pos, part.end), arrived, min(self.timeout, xet.STALL_SECONDS))
            except TransientError as error:
                self._xet_tries -= 1
                log(
                    "model.xet", file=self.file.to, why=str(error), arrived=part.pos - began, tries_left=self._xet_tries
                )
                raise
            finally:
                with self.lock:
                    self._spans.give_back(part)

    def _settle(self, answer: Answer, part: Part) -> Part:
        """Take in what the first bytes of an answer say; the lock is held."""
        assert self._spans is not None
        size = self.journal.size
        if self._etag and answer.etag != self._etag:
            self.journal.name(self.file.size, "")
            self._spans.size = self.file.size or ENDLESS
            self._begin_again()
            self.state = "starting"
            raise TransientError(f"{self.file.source} changed while it was fetched: beginning again")
        if size and answer.total is not None and answer.total != size:
            raise self._moved(f"sends {answer.total} bytes, {size} were stated")
        if not self.journal.sha256:
            self._etag = answer.etag
        self.journal.etag = answer.etag
        if not size and answer.total is not None:
            size = answer.total
            self.journal.name(size, self.journal.sha256)
            os.ftruncate(self._descriptor, size)
            self._spans.resize(size)
        self._ranges = answer.ranges
        if not answer.ranges and part.pos != 0:
            self._begin_again()
            taken = self._spans.take(1, whole=True)
            assert taken is not None
            part = taken
        elif not answer.ranges:
            self._generation += 1
            part = self._spans.only(part)
        self.state, self._worked = "fetching", True
        return part

    def _receive(self, answer: Answer, part: Part, generation: int) -> bool:
        """Write what arrives; the answer says whether the body was read to its end."""
        arrived = 0
        while True:
            with self.lock:
                left = part.left if generation == self._generation and not self.over else 0
            if left <= 0:
                return answer.length is not None and arrived == answer.length
            data = answer.response.read(min(READ, left))
            if not data:
                break
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, memoryview(data)[written:], part.pos + written)
            arrived += len(data)
            with self.lock:
                if generation != self._generation:
                    return False
                part.pos += len(data)
                self._progressed = self.clock()
            self._more.set()
            self._note()
        with self.lock:
            if self._spans is not None and self._spans.size == ENDLESS and answer.length is None:
                # No one stated a size, and the server ended the body properly.
                self._spans.resize(part.pos)
                self.journal.name(part.pos, self.journal.sha256)
                return True
        raise TransientError(f"{self.file.source}: the connection ended {left} bytes early")

    def _note(self, force: bool = False) -> None:
        if self._spans is not None and (force or self.journal.due(self.clock())):
            with self.lock:
                missing, done = self._spans.missing, self._spans.done
            self.journal.write(missing, done)

    def _try_again(self, why: str, wait: float) -> None:
        with self.lock:
            now = self.clock()
            if now - self._progressed > self.timeout:
                self._fail(
                    StalledError(
                        f"{self.file.to}: nothing arrived for {self.timeout:g} s ({why}): check the network;"
                        " the next fetch goes on where this one stopped, DOWNLOAD_TIMEOUT sets the limit"
                    )
                )
                return
            if self.state == "starting":
                self.state = "waiting"
            if now < self._not_before:
                return
            self._pause = FIRST_PAUSE if self._progressed > self._failed_at else min(self._pause * 2, LONGEST_PAUSE)
            self._failed_at = now
            left = self.timeout - (now - self._progressed)
            pause = min(max(self._pause, wait), max(left + 0.05, 0.05))
            self._not_before = now + pause
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

    def _begin_again(self) -> None:
        assert self._spans is not None
        self._generation += 1
        self._spans.restart()
        self._etag = ""
        self._more.set()

    def _fail(self, error: FetchError) -> None:
        with self.lock:
            if self.over:
                return
            if not str(error).startswith(self.file.to):
                error = type(error)(f"{self.file.to}: {self.file.source}: {error}")
            self.error, self.state = error, "failed"
            self.lock.notify_all()
        self._more.set()
        if not isinstance(error, CorruptError):
            self._note(force=True)

    def _moved(self, what: str) -> MovedError:
        return MovedError(
            f"{self.file.to}: {self.file.source} {what}: the file changed upstream, nothing here is corrupt;"
            " run `hearmeman models lock` to take the new one"
        )

    def _disk_error(self, error: OSError) -> FetchError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = "the disk is full" if error.errno == errno.ENOSPC else "the volume's quota is used up"
            left = self.total - self.done
            return DiskFullError(
                f"{self.file.to}: {what}, {left} bytes of it are missing: free some space or use a larger volume;"
                " the next fetch goes on where this one stopped"
            )
        return FetchError(f"{self.file.to}: {error.filename or self.staged} cannot be written: {error.strerror}")

    # The hash

    def _check(self) -> None:
        """Hash the bytes in order as they arrive; when all have, accept the file or begin again."""
        try:
            while (digest := self._hash()) is not None:
                if self._settled(digest):
                    break
        except FetchError as error:
            self._fail(error)
        except OSError as error:
            self._fail(self._disk_error(error))
        except Exception as error:
            self._fail(FetchError(f"{type(error).__name__}: {error}: report this"))
            raise
        finally:
            with self.lock:
                # A connection may be about to write to the descriptor, whose number must not be used again yet.
                self.lock.wait_for(lambda: self.connections == 0)
                os.close(self._descriptor)

    def _hash(self) -> str | None:
        """Hash the whole file; None when it will never be whole."""
        hasher, position, generation = hashlib.sha256(), 0, -1
        buffer = memoryview(bytearray(BLOCK))
        while True:
            self._more.wait(0.5)
            self._more.clear()
            with self.lock:
                assert self._spans is not None
                if self.over:
                    return None
                if generation != self._generation:
                    hasher, position, generation = hashlib.sha256(), 0, self._generation
                frontier, complete = self._spans.frontier, self._spans.complete
            while position < frontier:
                count = os.preadv(self._descriptor, [buffer[: frontier - position]], position)
                if count <= 0:
                    raise OSError(errno.EIO, "a staged file became shorter", str(self.staged))
                hasher.update(buffer[:count])
                position += count
            if complete and generation == self._generation:
                return hasher.hexdigest()

    def _settled(self, digest: str) -> bool:
        """Compare, and give the file its place; False when it is to be fetched again from its first byte."""
        with self.lock:
            self.state = "checking"
            expected, size = self.journal.sha256, self.journal.size
            blob = self.file.blob or (self.remote.blob if self.remote and not expected else None)
        wrong = ""
        if not size:
            wrong = "it is empty"
        elif expected and digest != expected:
            wrong = f"its sha256 is {digest[:12]}... instead of {expected[:12]}..."
        elif blob and git_blob(self.staged) != blob:
            wrong = "it differs from what git names"
        else:
            try:
                check_format(self.staged)
            except CorruptError as error:
                wrong = str(error)
        if not wrong:
            self.journal.close()
            self._accept(self.file, digest)
            with self.lock:
                self.state = "present"
                self.lock.notify_all()
            return True
        self.journal.forget()
        if self._restarts:
            self.staged.unlink(missing_ok=True)
            raise CorruptError(
                f"{self.file.to}: {self.file.source} sent {size} bytes twice, and both times {wrong}:"
                " nothing was put in its place; if upstream changed the file, run `hearmeman models lock`"
            )
        log("model.again", file=self.file.to, why=wrong)
        with self.lock:
            self._restarts += 1
            self._begin_again()
            self.state = "fetching" if self.remote else "waiting"
            self.lock.notify_all()
        return False
