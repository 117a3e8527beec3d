"""A snapshot whose files are still to be listed, or a file still to be named, with the patience that a file gets."""

from __future__ import annotations

from collections.abc import Callable

from hearmeman.log import log
from hearmeman.models.catalogue import File, Snapshot
from hearmeman.models.errors import ContradictionError, FetchError, TransientError, disk_error, stalled
from hearmeman.models.http import Http
from hearmeman.models.progress import Row
from hearmeman.models.retry import Retry
from hearmeman.models.tools import Tools


class ListingTask:
    """Asks the source which files there are and what they are called, and notes it; `listed` then adds them to the fetch."""

    def __init__(self, file: File, tools: Tools, listed: Callable[[File], None]) -> None:
        self.file, self.tools, self.lock = file, tools, tools.lock
        self.over = False
        self.error: FetchError | None = None
        self._retry = Retry(tools.settings.download_timeout, tools.clock)
        self._listed = listed
        self._begun = self._asking = False

    @property
    def row(self) -> Row | None:
        """How it is shown; None once its files are."""
        if self.over and self.error is None:
            return None
        state = "failed" if self.error else "listing" if self._asking else "waiting"
        return Row(self.file.to, state, self.file.expected, 0, str(self.error or ""))

    def wants_connection(self, spare: bool = False) -> bool:
        """Tell whether the source should be asked now; the lock is held."""
        return not self.over and not self._asking and self._retry.may_try

    def join(self) -> None:
        """Announce a thread; the lock is held."""
        if not self._begun:
            self._begun = True
            self._retry.progressed()
        else:
            self._retry.resumed()
        self._asking = True

    def work(self, http: Http) -> None:
        """Ask once."""
        source, store = self.file.source, self.tools.store
        try:
            if isinstance(source, Snapshot):
                store.note_listing(self.file, self.tools.sources.list(source))
            else:
                self.tools.statements.name(self.file)
            self._listed(self.file)
            with self.lock:
                self.over = True
                self.lock.notify_all()
        except ContradictionError as error:
            self._failed(str(error), error.wait, error.verdict if self._retry.contradicted() else None)
        except TransientError as error:
            self._failed(str(error), error.wait, None)
        except FetchError as error:
            self._end(error)
        except OSError as error:
            self._end(disk_error(self.file.to, str(store.listings), 0, error))
        except Exception as error:
            self._end(FetchError(f"{type(error).__name__}: {error}: report this"))
            raise
        finally:
            with self.lock:
                self._asking = False

    def tend(self) -> None:
        """End it when the source has not answered for too long, whatever its thread is doing; the lock is held."""
        limit = self._retry.timeout * 4 / 3 + 5
        if not self.over and self._asking and self._retry.silence > limit:
            self._end(stalled(self.file.to, limit, "the source does not answer"))

    def _failed(self, why: str, wait: float, verdict: FetchError | None) -> None:
        if verdict is not None or self._retry.exhausted:
            self._end(verdict or stalled(self.file.to, self._retry.timeout, why))
            return
        with self.lock:
            pause = self._retry.failed(wait)
        log("model.retrying", file=self.file.to, why=why, pause=pause)

    def _end(self, error: FetchError) -> None:
        if not str(error).startswith(self.file.to):
            error = type(error)(f"{self.file.to}: {self.file.source}: {error}")
        with self.lock:
            if self.over:
                return
            self.error, self.over = error, True
            self.lock.notify_all()
        log("model.failed", file=self.file.to, why=error)
