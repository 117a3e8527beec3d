"""One file's way: read where it lies, or fetched over several connections, hashed as it arrives, put in its place."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from hearmeman.log import log
from hearmeman.models import transfer, xet
from hearmeman.models.catalogue import File
from hearmeman.models.content import Content
from hearmeman.models.errors import (
    ContradictionError,
    CorruptError,
    FetchError,
    NoRangesError,
    TransientError,
    disk_error,
    stalled,
    twice_wrong,
)
from hearmeman.models.hashing import Front, follow
from hearmeman.models.http import Http
from hearmeman.models.phase import Event, Phase, State, advance
from hearmeman.models.progress import Row
from hearmeman.models.remote import Remote
from hearmeman.models.retry import FIRST_PAUSE, Retry
from hearmeman.models.tools import Tools
from hearmeman.models.verify import check, wrong_with

DISK_SECONDS = 900.0
"""What syncing and renaming may take without a word: network volumes stand still for minutes."""
SLOWEST_DISK = 10e6
"""Bytes per second that a disk reads at least."""


class Download:
    """One file, shared by the threads that work on it; its tools' lock guards all that changes.

    `there` is the size of the file that is at its place already and must be read first; None where none is.
    """

    def __init__(self, file: File, tools: Tools, there: int | None = None) -> None:
        self.file, self.tools, self.lock = file, tools, tools.lock
        self.content = Content(tools.store.staged(file), tools.store.journal(file), tools.lock)
        self.state = State()
        self.error: FetchError | None = None
        self.connections = 0
        self.remote: Remote | None = None
        self.ranges = True
        """Whether the server gives the ranges that are asked for."""
        self.retry = Retry(tools.settings.download_timeout, tools.clock)
        self.xet_tries = xet.TRIES if tools.settings.download_xet else 0
        self.lanes = transfer.Lanes(self.content, tools.clock)
        self._there = there
        self._unread = there is not None
        self._asking = False
        self._begun: float | None = None
        self._trusts_cache, self._has_cached_bytes = True, False
        self._wrong_before = False
        self._furthest = 0

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state.over

    @property
    def row(self) -> Row:
        """How far it is, as it is shown; the lock is held."""
        phase = self.state.phase
        total = self._there if self._there is not None else self.content.size or self.file.expected
        done = total if phase is Phase.PRESENT else self.content.done
        return Row(self.file.to, phase.value, total, done, str(self.error or ""))

    def wants_connection(self, spare: bool = False) -> bool:
        """Tell whether one more connection would be of use now; the lock is held.

        `spare` ones are those that no other file wants: they may go beyond what one file gets else.
        """
        if self.over or not self.retry.may_try:
            return False
        if self.state.phase is Phase.WAITING:
            return self.connections == 0 and (not self._unread or self._may_read())
        if self.state.phase is not Phase.FETCHING or self.content.spans.complete:
            return False
        if self.remote is None:
            return not self._asking
        if not self.ranges:
            return self.connections == 0
        most = self.tools.settings.download_connections_per_file * (2 if spare else 1)
        return self.connections < most and self.lanes.has_work()

    def join(self) -> None:
        """Announce a connection; the lock is held, and `work` follows."""
        self.connections += 1
        if self._unread:
            self._unread = False
            self.tools.readers.acquire(blocking=False)
            self.move(Event.VERIFY, self.state.attempt)
            self.retry.progressed()
            return
        if self._begun is None:
            # Time without progress counts from here: files wait for their turn.
            self._begun = self.tools.clock()
            self.retry.progressed()
        elif self.connections == 1:
            self.retry.resumed()
        self._asking = self._asking or self.remote is None
        self.move(Event.BEGIN, self.state.attempt)

    def work(self, http: Http) -> None:
        """Read the file that is there, or fetch one range, after asking for the address if that is not known."""
        with self.lock:
            phase, attempt, remote = self.state.phase, self.state.attempt, self.remote
        try:
            if phase is Phase.VERIFYING:
                with self._ending_with_it(attempt, Event.GIVE_UP):
                    self._verify(attempt)
            else:
                with self._ending_with_it(attempt, Event.FAIL):
                    if remote is None:
                        remote = self._start(attempt)
                    if remote.xet is not None and self.xet_tries and self.row.size >= xet.SMALLEST:
                        transfer.through_xet(self, remote.xet, attempt)
                    transfer.over_http(self, http, remote, attempt)
        except ContradictionError as error:
            self._contradicted(remote, attempt, error)
        except TransientError as error:
            self._try_again(remote, attempt, str(error), error.wait)
        finally:
            with self.lock:
                self.connections -= 1
                # This thread looks for more by itself; the others need not be woken for each range.
                if self.connections == 0 or self.over:
                    self.lock.notify_all()
            self.content.more.set()

    def tend(self) -> None:
        """End it when nothing has moved for too long, whatever its threads are doing; the lock is held."""
        timeout = self.retry.timeout
        on_disk = self.state.phase in (Phase.CHECKING, Phase.VERIFYING)
        at_work = self.connections > 0 or on_disk or (self.content.opened and self.content.spans.complete)
        limit = DISK_SECONDS + self.row.size / SLOWEST_DISK if on_disk else timeout * 4 / 3 + 5
        if not self.over and at_work and self.retry.silence > limit:
            self._end(
                stalled(self.file.to, limit, f"it was {self.state.phase.value}"), self.state.attempt, Event.GIVE_UP
            )

    def pause(self) -> None:
        """Note what has arrived, for the next start."""
        if not self.over:
            self.content.note(force=True)

    def move(self, event: Event, attempt: int) -> bool:
        """Move on to the state after `event`, unless it comes too late; the lock is held."""
        after = advance(self.state, event, attempt)
        if after is None:
            return False
        if after.attempt != self.state.attempt:
            self.content.begin_again(after.attempt)
            self._has_cached_bytes = False
        if after.phase != self.state.phase:
            self.state = after
            self.lock.notify_all()
        self.state = after
        return True

    def progressed(self, remote: Remote, position: int) -> None:
        """Note that bytes have arrived; without ranges they count only beyond what earlier connections brought."""
        self._has_cached_bytes = self._has_cached_bytes or remote.cached
        if self.ranges or position > self._furthest:
            self._furthest = position
            self.retry.progressed()

    def _may_read(self) -> bool:
        if not self.tools.readers.acquire(blocking=False):
            return False
        self.tools.readers.release()
        return True

    @contextlib.contextmanager
    def _ending_with_it(self, attempt: int, *events: Event) -> Iterator[None]:
        """Let what cannot be tried again end this file, by that one of `events` which its state allows."""
        try:
            yield
        except FetchError as error:
            self._end(error, attempt, *events)
        except OSError as error:
            missing = self.row.size - self.content.done
            self._end(disk_error(self.file.to, str(self.content.path), missing, error), attempt, *events)
        except TransientError:
            raise
        except Exception as error:
            # A mistake of ours must end this file, not hang the fetch.
            self._end(FetchError(f"{type(error).__name__}: {error}: report this"), attempt, *events)
            raise

    def _end(self, error: FetchError, attempt: int, *events: Event) -> None:
        if not str(error).startswith(self.file.to):
            error = type(error)(f"{self.file.to}: {self.file.source}: {error}")
        with self.lock:
            if not any(self.move(event, attempt) for event in events):
                return
            self.error = error
        self.content.more.set()
        log("model.failed", file=self.file.to, why=error)
        if not isinstance(error, CorruptError):
            self.content.note(force=True)

    def _verify(self, attempt: int) -> None:
        file, path, compared = self.file, self.tools.store.root / self.file.to, True
        try:
            try:
                file = self.tools.statements.learn(file)
            except (FetchError, TransientError) as error:
                # It is there and may be right; the next start asks again.
                log("model.uncompared", file=file.to, why=error, then="using it, since its format is right")
                compared = False
            digest = check(path, file.size, file.sha256, file.blob, file.about)
        except (CorruptError, OSError) as error:
            log("model.damaged", file=file.to, why=error, then="fetching it again")
            with self.lock:
                self._there = None
                self.move(Event.DIFFERS, attempt)
            return
        finally:
            self.tools.readers.release()
        # The file is right even if a full disk keeps us from noting it.
        with contextlib.suppress(OSError):
            if compared:
                self.tools.store.note(file, digest, "")
        log("model.present", file=file.to, how="verify")
        with self.lock:
            self.move(Event.MATCHES, attempt)

    def _start(self, attempt: int) -> Remote:
        file, content = self.file, self.content
        try:
            remote = self.tools.locate(file, self._trusts_cache)
        finally:
            with self.lock:
                self._asking = False
        with self.lock:
            if not content.opened:
                size = file.size or remote.size
                if content.open(size, file.sha256 or remote.sha256 or ""):
                    log("model.resumed", file=file.to, have=content.done, of=size)
                threading.Thread(target=self._check, name=f"hash {file.id}", daemon=True).start()
            elif not file.sha256 and remote.sha256 and remote.sha256 != content.journal.sha256:
                self.change(attempt, remote.size, remote.sha256)
            self.remote = remote
        return remote

    def change(self, attempt: int, size: int | None, sha256: str) -> None:
        """Begin again, since the source has another content now; the lock is held."""
        why = f"{self.file.source} changed while it was fetched: starting over"
        if self.move(Event.AGAIN, attempt):
            self.content.become(size, sha256)
            log("model.restarted", file=self.file.to, why=why)
        raise TransientError(why)

    def _try_again(self, remote: Remote | None, attempt: int, why: str, wait: float) -> None:
        with self.lock:
            if self.retry.exhausted:
                self._end(stalled(self.file.to, self.retry.timeout, why), attempt, Event.FAIL)
                return
            # Without ranges what has arrived cannot be gone on with.
            if not self.move(Event.SET_BACK if self.ranges else Event.AGAIN, attempt):
                return
            pause = self.retry.failed(wait)
            if remote is not None and remote.cached and pause > FIRST_PAUSE:
                self._leave_cache(why)
        if pause:
            log("model.retrying", file=self.file.to, why=why, pause=pause)

    def _contradicted(self, used: Remote | None, attempt: int, error: ContradictionError) -> None:
        """Ask for another link, at once the first time, a few times in all."""
        with self.lock:
            if used is not None and self.remote is not used:
                self.move(Event.SET_BACK, attempt)
                return
            self.remote = None
            if used is not None and used.cached:
                self._leave_cache(str(error))
                self.move(Event.SET_BACK, attempt)
                return
            if self.retry.contradicted():
                if not isinstance(error, NoRangesError):
                    self._end(error.verdict, attempt, Event.FAIL)
                    return
                self.ranges = False
                self.move(Event.AGAIN, attempt)
            elif not self.move(Event.SET_BACK, attempt):
                return
            pause = self.retry.failed(error.wait) if self.retry.contradictions > 1 else 0
        log("model.renewed", file=self.file.to, why=error, pause=pause)

    def _leave_cache(self, why: str) -> None:
        """Ask the source from now on; the lock is held."""
        self._trusts_cache, self.remote = False, None
        sha256 = self.content.journal.sha256
        if self.tools.cache is not None:
            self.tools.cache.distrust(sha256, self.file.to, why)

    def _check(self) -> None:
        """Hash the bytes in order as they arrive; when all have, accept the file or begin again."""
        content = self.content
        try:
            while not self.over:
                attempt = self.content.attempt
                with self._ending_with_it(attempt, Event.FAIL):
                    found = follow(content.descriptor, self._look, content.more, self.retry.progressed)
                    if found is not None:
                        digest, attempt = found
                        with self._ending_with_it(attempt, Event.REFUSED):
                            self._judge(digest, attempt)
        finally:
            with self.lock:
                # A connection may be about to write to the descriptor, whose number must not be used again yet.
                self.lock.wait_for(lambda: self.connections == 0)
                os.close(content.descriptor)

    def _look(self) -> Front | None:
        with self.lock:
            return None if self.over else self.content.front()

    def _judge(self, digest: str, attempt: int) -> None:
        """Compare, and give the file its place or let it begin again from its first byte."""
        content = self.content
        with self.lock:
            if not self.move(Event.WHOLE, attempt):
                return
            self.retry.progressed()
            expected, cached = content.journal.sha256, self._has_cached_bytes
            blob = self.file.blob or (self.remote.blob if self.remote and not expected else None)
        wrong = wrong_with(content.path, digest, expected, blob, self.file.to)
        if wrong:
            self._begin_again(wrong, attempt, cached)
            return
        # Should the disk refuse, the next start finds it whole.
        content.note(force=True)
        content.journal.close()
        size = content.size
        self.tools.place(self.file, digest, cached and self._trusts_cache)
        seconds = self.tools.clock() - (self._begun or 0)
        how = "cache" if cached else "fetch"
        with self.lock:
            if self.move(Event.PLACED, attempt):
                log("model.present", file=self.file.to, how=how, bytes=size, seconds=seconds)

    def _begin_again(self, wrong: str, attempt: int, cached: bool) -> None:
        content = self.content
        content.journal.forget()
        if self._wrong_before and not cached:
            size = content.path.stat().st_size
            content.path.unlink(missing_ok=True)
            raise twice_wrong(self.file.to, self.file.source, size, wrong)
        log("model.restarted", file=self.file.to, why=wrong)
        with self.lock:
            if cached:
                self._leave_cache(wrong)
            else:
                self._wrong_before = True
            self.remote = None
            self.move(Event.WRONG, attempt)
